#pragma once

#include <vector>

#include "worker/trainer/optim/device_step.h"
#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) by LibTorch's fused kernel, or by the project's own
// where there are kernels for the device. All tensors must be on one device.
class AdamW : public KernelOptimizer {
 public:
  AdamW(const OptimizerOptions& options, std::vector<TrainedTensor> tensors);
  using Optimizer::Step;
  void Step(const std::vector<at::Tensor>& gradients) override;
  std::map<std::string, at::Tensor> State() const override;
  common::Status LoadState(const std::map<std::string, at::Tensor>& state) override;

 private:
  void StepWithKernels(const std::vector<at::Tensor>& gradients);

  OptimizerOptions options_;
  std::vector<TrainedTensor> tensors_;
  std::vector<at::Tensor> first_moments_, second_moments_;
  at::Tensor all_steps_;           // float32, one for each tensor
  std::vector<at::Tensor> steps_;  // its elements as scalars, as LibTorch's kernel wants them
};

}  // namespace allometry::trainer
