#include "worker/trainer/layers/gru.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "worker/trainer/layers/device_ops.h"
#include "worker/trainer/layers/plain_attention.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kInitialShutness = 2.0;  // sigmoid(-2) = 0.12

const kernels::KernelTable& GateKernels(const at::Tensor& t) {
  const kernels::KernelTable* table = ops::device::KernelsOf(t);
  TORCH_CHECK(table, "the gate's backward pass is without the kernels that its forward pass took");
  return *table;
}

// The gate of rows x, n and the normalised y, between whose products a GPU's kernels compute.
struct GruGateFunction : torch::autograd::Function<GruGateFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& n, const at::Tensor& y,
                            const at::Tensor& update_reset, const at::Tensor& reset_norm,
                            const at::Tensor& candidate_weight) {
    const kernels::KernelTable& table = GateKernels(x);
    const at::Tensor seen = at::cat({n, y}, 1), gates = at::mm(seen, update_reset.t());
    const at::Tensor reset = ops::device::GruReset(table, x, gates);
    const ops::Normed normed = ops::NormForward(reset, reset_norm);
    const at::Tensor read = at::cat({normed.y_rd, y}, 1), candidate = at::mm(read, candidate_weight.t());
    context->save_for_backward(
        {x, seen, gates, reset, normed.scale_r, read, candidate, update_reset, reset_norm, candidate_weight});
    return ops::device::GruMix(table, x, gates, candidate);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list s = context->get_saved_variables();
    const at::Tensor &x = s[0], &seen = s[1], &gates = s[2], &reset = s[3], &scale = s[4], &read = s[5],
                     &candidate = s[6], &update_reset = s[7], &reset_norm = s[8], &candidate_weight = s[9];
    const kernels::KernelTable& table = GateKernels(x);
    const int64_t d = x.size(1);
    const at::Tensor dgates = at::empty_like(gates);
    const ops::device::GruMixGradients mix =
        ops::device::GruMixBackward(table, x, gates, candidate, gradients[0].contiguous(), dgates);
    const at::Tensor dcandidate_weight = at::mm(mix.dcandidate_rd.t(), read);
    const at::Tensor dread = at::mm(mix.dcandidate_rd, candidate_weight);
    const ops::NormGradients norm = ops::NormBackward(dread.slice(1, 0, d).contiguous(), reset, reset_norm, scale, {});
    ops::device::GruResetBackward(table, x, gates, norm.dx_rd, mix.dx_rd, dgates);
    const at::Tensor dseen = at::mm(dgates, update_reset);
    return {mix.dx_rd,      dseen.slice(1, 0, d), dseen.slice(1, d) + dread.slice(1, d), at::mm(dgates.t(), seen),
            norm.dweight_d, dcandidate_weight};
  }
};

}  // namespace

GruGate::GruGate(int64_t d_model) {
  update_reset_ = AddWeight(this, "update_reset", {2 * d_model, 2 * d_model});
  candidate_ = AddWeight(this, "candidate", {d_model, 2 * d_model});
  value_norm_ = register_module("value_norm", std::make_shared<RmsNorm>(d_model));
  reset_norm_ = register_module("reset_norm", std::make_shared<RmsNorm>(d_model));
}

void GruGate::Initialise(at::Generator generator) {
  for (const auto& weight : {update_reset_, candidate_})
    FillNormal(**weight, std::pow(static_cast<double>((**weight).size(1)), -0.5), generator);
  at::NoGradGuard no_grad;
  const int64_t d = (**candidate_).size(0);
  (**update_reset_).slice(0, 0, d).select(1, 0).fill_(-kInitialShutness);
  (**candidate_)[0].zero_();
  (**candidate_).slice(1, 0, d).copy_(at::eye(d, (**candidate_).options()));
}

at::Tensor GruGate::forward(const at::Tensor& x_btd, const at::Tensor& n_btd, const at::Tensor& y_btd) {
  const at::Tensor y = value_norm_->forward(y_btd);
  if (ops::device::KernelsOf(x_btd))
    return GruGateFunction::apply(Rows(x_btd), Rows(n_btd), Rows(y), **update_reset_, reset_norm_->weight(),
                                  **candidate_)
        .view(x_btd.sizes());
  const std::vector<at::Tensor> gates = at::sigmoid(at::linear(at::cat({n_btd, y}, -1), **update_reset_)).chunk(2, -1);
  const at::Tensor &update = gates[0], &reset = gates[1];
  const at::Tensor candidate =
      at::tanh(at::linear(at::cat({reset_norm_->forward(reset * x_btd), y}, -1), **candidate_));
  return (1 - update) * x_btd + update * candidate;
}

GruAttentionSublayer::GruAttentionSublayer(const arch::Shape& shape, bool is_cross) : is_cross_(is_cross) {
  attention_ = register_module(is_cross ? "EncDecAttention" : "SelfAttention",
                               std::make_shared<Attention>(shape, /*with_table=*/false));
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(shape.d_model));
  gate_ = register_module("gate", std::make_shared<GruGate>(shape.d_model));
}

void GruAttentionSublayer::Initialise(at::Generator generator) {
  attention_->Initialise(generator);
  gate_->Initialise(generator);
}

at::Tensor GruAttentionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  const at::Tensor n = norm_->forward(x_btd);
  return gate_->forward(x_btd, n, (is_cross_ ? CrossAttend : SelfAttend)(*attention_, n, context, 0));
}

at::Tensor GruAttentionSublayer::Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) {
  const at::Tensor n = norm_->forward(x_b1d);
  return gate_->forward(x_b1d, n, (is_cross_ ? CrossAttendStep : SelfAttendStep)(*attention_, n, context, cache));
}

GruFeedForwardSublayer::GruFeedForwardSublayer(int64_t d_model, int64_t d_ff) {
  dense_ = register_module("DenseReluDense", std::make_shared<torch::nn::Module>());
  wi_ = AddWeight(dense_.get(), "wi", {d_ff, d_model});
  wo_ = AddWeight(dense_.get(), "wo", {d_model, d_ff});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
  gate_ = register_module("gate", std::make_shared<GruGate>(d_model));
}

void GruFeedForwardSublayer::Initialise(at::Generator generator) {
  for (const auto& weight : {wi_, wo_})
    FillNormal(**weight, std::pow(static_cast<double>((**weight).size(1)), -0.5), generator);
  gate_->Initialise(generator);
}

at::Tensor GruFeedForwardSublayer::forward(const at::Tensor& x_btd, const StackContext&) {
  const at::Tensor n = norm_->forward(x_btd);
  return gate_->forward(x_btd, n, at::linear(at::relu(at::linear(n, **wi_)), **wo_));
}

}  // namespace allometry::trainer
