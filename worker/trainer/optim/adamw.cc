#include "worker/trainer/optim/adamw.h"

#include <ATen/ATen.h>

namespace allometry::trainer {

AdamW::AdamW(const OptimizerOptions& options, std::vector<TrainedTensor> tensors)
    : options_(options), tensors_(std::move(tensors)) {
  for (const TrainedTensor& tensor : tensors_) {
    first_moments_.push_back(at::zeros_like(tensor.value));
    second_moments_.push_back(at::zeros_like(tensor.value));
    steps_.push_back(at::zeros({}, tensor.value.options()));
  }
}

void AdamW::Step(const std::vector<at::Tensor>& gradients, double rate) {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> values, present, first, second, steps;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!gradients[i].defined() || gradients[i].numel() == 0) continue;
    values.push_back(tensors_[i].value);
    present.push_back(gradients[i]);
    first.push_back(first_moments_[i]);
    second.push_back(second_moments_[i]);
    steps.push_back(steps_[i].add_(1));
  }
  if (values.empty()) return;
  at::_fused_adamw_(values, present, first, second, /*max_exp_avg_sqs=*/{}, steps, rate, options_.beta1, options_.beta2,
                    options_.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
}

std::map<std::string, at::Tensor> AdamW::State() const {
  std::map<std::string, at::Tensor> state;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    state[tensors_[i].name + ".first_moment"] = first_moments_[i];
    state[tensors_[i].name + ".second_moment"] = second_moments_[i];
    state[tensors_[i].name + ".steps"] = steps_[i];
  }
  return state;
}

common::Status AdamW::LoadState(const std::map<std::string, at::Tensor>& state) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    ALLO_RETURN_IF_ERROR(LoadTensor(state, tensors_[i].name + ".first_moment", first_moments_[i]));
    ALLO_RETURN_IF_ERROR(LoadTensor(state, tensors_[i].name + ".second_moment", second_moments_[i]));
    ALLO_RETURN_IF_ERROR(LoadTensor(state, tensors_[i].name + ".steps", steps_[i]));
  }
  return common::Ok();
}

}  // namespace allometry::trainer
