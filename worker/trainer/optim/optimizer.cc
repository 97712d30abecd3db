#include "worker/trainer/optim/optimizer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/trainer/optim/adafactor.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/fused_loops.h"

namespace allometry::trainer {

namespace {

[[noreturn]] void NeedsKernels() { TORCH_CHECK(false, "this optimiser's steps are not made by kernels"); }

}  // namespace

void Optimizer::MeasureNorm(double) { NeedsKernels(); }
void Optimizer::SumNormOverRanks(const std::vector<bool>&, std::function<void(const at::Tensor&)>) { NeedsKernels(); }
at::Tensor Optimizer::norm() const { NeedsKernels(); }
void Optimizer::SetCopies(const std::vector<at::Tensor>&) { NeedsKernels(); }
void Optimizer::BeginCapture() { NeedsKernels(); }
at::Tensor Optimizer::EndCapture() { NeedsKernels(); }

common::Result<std::unique_ptr<Optimizer>> MakeOptimizer(const OptimizerOptions& options,
                                                         std::vector<TrainedTensor> tensors) {
  if (options.name == "adafactor") return {std::make_unique<Adafactor>(options, std::move(tensors))};
  if (options.name == "adamw") return {std::make_unique<AdamW>(options, std::move(tensors))};
  return common::InvalidArgument("unknown optimizer '" + options.name + "': allowed are adafactor and adamw");
}

double GradientNorm(const std::vector<at::Tensor>& gradients) {
  double total = 0;
  at::Tensor on_device;  // one transfer for all tensors of a GPU
  for (const at::Tensor& gradient : gradients) {
    if (!gradient.defined()) continue;
    if (gradient.is_cpu() && gradient.scalar_type() == at::kFloat) {
      total += loops::SumOfSquares(gradient.const_data_ptr<float>(), gradient.numel());
    } else {
      const at::Tensor sum = at::square(gradient).sum(at::kDouble);
      on_device = on_device.defined() ? on_device + sum : sum;
    }
  }
  if (on_device.defined()) total += on_device.item<double>();
  return std::sqrt(total);
}

void ScaleGradients(const std::vector<at::Tensor>& gradients, double factor) {
  for (at::Tensor gradient : gradients) {
    if (!gradient.defined()) continue;
    if (gradient.is_cpu() && gradient.scalar_type() == at::kFloat)
      loops::Scale(gradient.mutable_data_ptr<float>(), gradient.numel(), static_cast<float>(factor));
    else
      gradient.mul_(factor);
  }
}

common::Status LoadTensor(const std::map<std::string, at::Tensor>& state, const std::string& name, at::Tensor& target) {
  auto found = state.find(name);
  if (found == state.end()) return common::DataLoss("the tensor '" + name + "' is missing");
  if (found->second.sizes() != target.sizes())
    return common::DataLoss("the tensor '" + name + "' has another shape than this run's");
  target.copy_(found->second);
  return common::Ok();
}

}  // namespace allometry::trainer
