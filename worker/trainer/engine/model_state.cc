#include "worker/trainer/engine/model_state.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>
#include <set>
#include <utility>

namespace allometry::trainer {

namespace {

using torch::autograd::PostAccumulateGradHook;

// Called by the backward pass whenever a parameter's gradient is complete.
struct GradientHook : PostAccumulateGradHook {
  explicit GradientHook(std::function<void()> f) : call(std::move(f)) {}
  void operator()(const at::Tensor&) override { call(); }
  std::function<void()> call;
};

}  // namespace

ModelState::ModelState(std::shared_ptr<Model> model, at::Device device, at::ScalarType type)
    : model_(std::move(model)), bf16_(type == at::kBFloat16) {
  at::NoGradGuard no_grad;
  if (type == at::kDouble) model_->to(at::kDouble);
  model_->to(device);
  std::set<const c10::TensorImpl*> seen;  // a tied parameter counts once
  for (const auto& item : model_->named_parameters()) {
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    at::Tensor parameter = item.value();
    // A parameter that is not rounded is its own master.
    const at::Tensor master = parameter.detach();
    if (bf16_ && !model_->StaysFloat32(item.key())) parameter.set_data(parameter.to(at::kBFloat16));
    parameters_.push_back(parameter);
    masters_.push_back({item.key(), master});
  }
  for (const auto& item : model_->named_buffers()) buffers_.push_back({item.key(), item.value()});
  gradient_sums_.resize(parameters_.size());
}

ModelState::~ModelState() {
  if (!reducer_) return;
  for (const at::Tensor& parameter : parameters_) torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
}

void ModelState::ReduceOverRanks(GradientReducer* reducer) {
  reducer_ = reducer;
  for (size_t i = 0; i < parameters_.size(); ++i)
    torch::autograd::impl::set_post_acc_grad_hooks(parameters_[i], std::make_unique<GradientHook>([this, i] {
                                                     if (last_pass_) PassOn(i);
                                                   }));
}

// This rank's sum of the step so far, which is then forgotten here; undefined if there is none.
at::Tensor ModelState::TakeGradient(size_t i) {
  at::Tensor gradient = std::exchange(parameters_[i].mutable_grad(), at::Tensor());
  if (!bf16_) return gradient;
  at::Tensor sum = std::exchange(gradient_sums_[i], at::Tensor());
  if (!gradient.defined()) return sum;
  return sum.defined() ? sum.add_(gradient) : gradient;
}

void ModelState::PassOn(size_t i) {
  at::NoGradGuard no_grad;
  if (const at::Tensor gradient = TakeGradient(i); gradient.defined()) reducer_->Ready(i, gradient);
}

int64_t ModelState::ParameterCount() const {
  int64_t count = 0;
  for (const TrainedTensor& master : masters_) count += master.value.numel();
  return count;
}

void ModelState::CollectGradients() {
  if (!bf16_) return;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& gradient = parameters_[i].grad();
    if (!gradient.defined()) continue;
    if (gradient_sums_[i].defined())
      gradient_sums_[i].add_(gradient);
    else
      gradient_sums_[i] = gradient.to(at::kFloat);
    parameters_[i].mutable_grad() = at::Tensor();
  }
}

std::vector<at::Tensor> ModelState::Gradients() {
  if (reducer_) {  // what the last pass did not reach goes now
    last_pass_ = false;
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (!reducer_->IsReady(i)) PassOn(i);
    return reducer_->Finish();
  }
  std::vector<at::Tensor> gradients(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& gradient = bf16_ ? gradient_sums_[i] : parameters_[i].grad();
    if (gradient.defined()) gradients[i] = gradient.detach().contiguous();
  }
  return gradients;
}

// A dropped gradient costs no pass over memory: the next backward pass hands over its own buffer.
void ModelState::ClearGradients() {
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad() = at::Tensor();
  for (at::Tensor& sum : gradient_sums_) sum = at::Tensor();
}

void ModelState::PublishWeights() {
  if (!bf16_) return;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].scalar_type() == at::kBFloat16) parameters_[i].detach().copy_(masters_[i].value);
}

std::map<std::string, at::Tensor> ModelState::Weights() const {
  std::map<std::string, at::Tensor> weights;
  for (const TrainedTensor& tensor : masters_) weights[tensor.name] = tensor.value;
  for (const TrainedTensor& tensor : buffers_) weights[tensor.name] = tensor.value;
  return weights;
}

common::Status ModelState::LoadWeights(const std::map<std::string, at::Tensor>& weights) {
  at::NoGradGuard no_grad;
  for (auto* group : {&masters_, &buffers_})
    for (TrainedTensor& tensor : *group) ALLO_RETURN_IF_ERROR(LoadTensor(weights, tensor.name, tensor.value));
  PublishWeights();
  return common::Ok();
}

}  // namespace allometry::trainer
