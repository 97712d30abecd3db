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
  SetDivided(nullptr, {});
}

void ModelState::SetDivided(Collective* collective, const std::set<std::string>& names) {
  collective_ = collective;
  divided_.assign(parameters_.size(), false);
  place_.assign(parameters_.size(), 0);
  parts_.resize(parameters_.size());
  own_gradients_.resize(parameters_.size());
  size_t shared = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    divided_[i] = names.contains(masters_[i].name);
    if (!divided_[i]) place_[i] = shared++;
  }
}

std::vector<at::Tensor> ModelState::SharedMasters() const {
  std::vector<at::Tensor> shared;
  for (size_t i = 0; i < masters_.size(); ++i)
    if (!divided_[i]) shared.push_back(masters_[i].value);
  return shared;
}

at::Tensor ModelState::WholeOf(size_t i) const {
  const at::Tensor& part = masters_[i].value;
  const int ranks = collective_->size();
  std::vector<int64_t> sizes = part.sizes().vec();
  sizes[0] *= ranks;
  const at::Tensor whole = at::empty(sizes, part.options());
  PartOf(i, whole).copy_(part);
  collective_->AllGather(whole.view({-1}), EvenBounds(whole.numel(), ranks));
  return whole;
}

at::Tensor ModelState::PartOf(size_t i, const at::Tensor& whole) const {
  const int64_t rows = whole.size(0) / collective_->size();
  return whole.narrow(0, rows * collective_->rank(), rows);
}

void ModelState::MakeWhole() {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!divided_[i]) continue;
    parts_[i] = parameters_[i].detach();
    parameters_[i].set_data(WholeOf(i).to(parts_[i].scalar_type()));
  }
}

void ModelState::MakeDivided() {
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (divided_[i]) parameters_[i].set_data(std::exchange(parts_[i], at::Tensor()));
}

void ModelState::MakeWholeForGood() {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!divided_[i]) continue;
    masters_[i].value = WholeOf(i);
    parameters_[i].set_data(masters_[i].value.to(parameters_[i].scalar_type()));
    divided_[i] = false;
  }
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
  const at::Tensor gradient = TakeGradient(i);
  if (!gradient.defined()) return;
  if (divided_[i])
    own_gradients_[i] = gradient.to(masters_[i].value.scalar_type());
  else
    reducer_->Ready(place_[i], gradient);
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
      if (divided_[i] ? !own_gradients_[i].defined() : !reducer_->IsReady(place_[i])) PassOn(i);
    const std::vector<at::Tensor> sums = reducer_->Finish();
    std::vector<at::Tensor> gradients;
    for (size_t i = 0; i < parameters_.size(); ++i)
      gradients.push_back(divided_[i] ? std::exchange(own_gradients_[i], at::Tensor()) : sums[place_[i]]);
    return gradients;
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

void ModelState::AbandonStep() {
  ClearGradients();
  last_pass_ = false;
  for (at::Tensor& gradient : own_gradients_) gradient = at::Tensor();
  if (reducer_) reducer_->Reset();
}

void ModelState::PublishWeights() {
  if (!bf16_) return;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].scalar_type() == at::kBFloat16) parameters_[i].detach().copy_(masters_[i].value);
}

std::vector<at::Tensor> ModelState::Copies() const {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& parameter : parameters_)
    copies.push_back(parameter.scalar_type() == at::kBFloat16 ? parameter.detach() : at::Tensor());
  return copies;
}

std::map<std::string, at::Tensor> ModelState::Weights() const {
  std::map<std::string, at::Tensor> weights;
  for (size_t i = 0; i < masters_.size(); ++i) weights[masters_[i].name] = divided_[i] ? WholeOf(i) : masters_[i].value;
  for (const TrainedTensor& tensor : buffers_) weights[tensor.name] = tensor.value.detach().clone();
  return weights;
}

common::Status ModelState::LoadWeights(const std::map<std::string, at::Tensor>& weights) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < masters_.size(); ++i) {
    const auto whole = weights.find(masters_[i].name);
    const bool part = divided_[i] && whole != weights.end();
    ALLO_RETURN_IF_ERROR(
        LoadTensor(part ? std::map<std::string, at::Tensor>{{whole->first, PartOf(i, whole->second)}} : weights,
                   masters_[i].name, masters_[i].value));
  }
  for (TrainedTensor& tensor : buffers_) ALLO_RETURN_IF_ERROR(LoadTensor(weights, tensor.name, tensor.value));
  PublishWeights();
  return common::Ok();
}

}  // namespace allometry::trainer
