#include "worker/trainer/layers/gru.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/trainer/layers/plain_attention.h"

namespace allometry::trainer {
namespace {

constexpr double kInitialShutness = 2.0;  // sigmoid(-2) = 0.12

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
