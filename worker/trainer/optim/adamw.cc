#include "worker/trainer/optim/adamw.h"

#include <ATen/ATen.h>

namespace allometry::trainer {

AdamW::AdamW(const OptimizerOptions& options, std::vector<TrainedTensor> tensors)
    : options_(options), tensors_(std::move(tensors)) {
  if (tensors_.empty()) return;
  all_steps_ = at::zeros({static_cast<int64_t>(tensors_.size())}, tensors_[0].value.options());
  for (const TrainedTensor& tensor : tensors_) {
    steps_.push_back(all_steps_[static_cast<int64_t>(steps_.size())]);
    first_moments_.push_back(at::zeros_like(tensor.value));
    second_moments_.push_back(at::zeros_like(tensor.value));
  }
  std::vector<DeviceStep::Slot> slots;
  for (size_t i = 0; i < tensors_.size(); ++i)
    slots.push_back({.value = tensors_[i].value,
                     .first_moment = first_moments_[i],
                     .second_moment = second_moments_[i],
                     .shape = {.columns = tensors_[i].value.numel()}});
  TakeKernels(slots);
}

void AdamW::Step(const std::vector<at::Tensor>& gradients) {
  at::NoGradGuard no_grad;
  if (UsesKernels()) return StepWithKernels(gradients);
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
  at::_fused_adamw_(values, present, first, second, /*max_exp_avg_sqs=*/{}, steps, rate_, options_.beta1,
                    options_.beta2, options_.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
}

void AdamW::StepWithKernels(const std::vector<at::Tensor>& gradients) {
  DeviceStep& step = device();
  step.Take(gradients);
  const kernels::KernelTable& table = step.table();
  kernels::OnStreamOf(table, all_steps_, [&](kernels::Stream stream) {
    table.advance_each(stream, step.work(), all_steps_.mutable_data_ptr<float>());
  });
  kernels::Run(table, table.adamw, all_steps_,
               {.work = step.work(),
                .steps = all_steps_.const_data_ptr<float>(),
                .rate = step.rate(),
                .factor = step.factor(),
                .beta1 = options_.beta1,
                .beta2 = options_.beta2,
                .epsilon = static_cast<float>(options_.epsilon),
                .weight_decay = static_cast<float>(options_.weight_decay)});
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
