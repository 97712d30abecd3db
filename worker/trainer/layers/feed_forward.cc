#include "worker/trainer/layers/feed_forward.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// x + mask_y * (hidden wo)
at::Tensor Output(const at::Tensor& x, const at::Tensor& hidden, const at::Tensor& wo, const at::Tensor& y_mask) {
  return y_mask.defined() ? at::addcmul(x, at::mm(hidden, wo.t()), y_mask) : at::addmm(x, hidden, wo.t());
}

struct FeedForwardFunction : torch::autograd::Function<FeedForwardFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_btd, const at::Tensor& norm,
                            const at::Tensor& wi, const at::Tensor& wo, const MaybeTensor& maybe_h_mask,
                            const MaybeTensor& maybe_y_mask) {
    const at::Tensor h_mask = TensorOf(maybe_h_mask), y_mask = TensorOf(maybe_y_mask);
    const at::Tensor x = Rows(x_btd);
    const ops::Normed normed = ops::NormForward(x, norm);
    at::Tensor hidden = at::mm(normed.y_rd, wi.t());
    ops::ReluForward(hidden, h_mask);
    context->save_for_backward({x, normed.y_rd, normed.scale_r, norm, wi, wo, hidden, h_mask, y_mask});
    return Output(x, hidden, wo, y_mask).view(x_btd.sizes());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list s = context->get_saved_variables();
    const at::Tensor &x = s[0], &normed = s[1], &scale = s[2], &norm = s[3], &wi = s[4], &wo = s[5], &hidden = s[6];
    const at::Tensor dy = Rows(gradients[0]), dout = Times(dy, s[8]);
    const at::Tensor dwo = at::mm(dout.t(), hidden);
    at::Tensor dhidden = at::mm(dout, wo);
    ops::ReluBackward(dhidden, hidden, s[7]);
    const at::Tensor dwi = at::mm(dhidden.t(), normed);
    const ops::NormGradients n = ops::NormBackward(at::mm(dhidden, wi), x, norm, scale, dy);
    return {n.dx_rd.view(gradients[0].sizes()), n.dweight_d, dwi, dwo, at::Tensor(), at::Tensor()};
  }
};

struct GatedFunction : torch::autograd::Function<GatedFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_btd, const at::Tensor& norm,
                            const at::Tensor& wi_0, const at::Tensor& wi_1, const at::Tensor& wo,
                            const MaybeTensor& maybe_h_mask, const MaybeTensor& maybe_y_mask, int64_t activation) {
    const at::Tensor h_mask = TensorOf(maybe_h_mask), y_mask = TensorOf(maybe_y_mask);
    const at::Tensor x = Rows(x_btd);
    const ops::Normed normed = ops::NormForward(x, norm);
    const at::Tensor u = at::mm(normed.y_rd, wi_0.t()), v = at::mm(normed.y_rd, wi_1.t());
    const at::Tensor hidden = ops::GateForward(static_cast<Activation>(activation), u, v, h_mask);
    context->save_for_backward({x, normed.y_rd, normed.scale_r, norm, wi_0, wi_1, wo, u, v, hidden, h_mask, y_mask});
    context->saved_data["activation"] = activation;
    return Output(x, hidden, wo, y_mask).view(x_btd.sizes());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list s = context->get_saved_variables();
    const at::Tensor &x = s[0], &normed = s[1], &scale = s[2], &norm = s[3], &wi_0 = s[4], &wi_1 = s[5], &wo = s[6],
                     &u = s[7], &v = s[8], &hidden = s[9];
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const at::Tensor dy = Rows(gradients[0]), dout = Times(dy, s[11]);
    const at::Tensor dwo = at::mm(dout.t(), hidden);
    const at::Tensor dhidden = at::mm(dout, wo), du = at::empty_like(u), dv = at::empty_like(v);
    ops::GateBackward(activation, u, v, dhidden, du, dv, s[10]);
    const at::Tensor dwi_0 = at::mm(du.t(), normed), dwi_1 = at::mm(dv.t(), normed);
    at::Tensor dnormed = at::mm(du, wi_0).addmm_(dv, wi_1);
    const ops::NormGradients n = ops::NormBackward(dnormed, x, norm, scale, dy);
    return {
        n.dx_rd.view(gradients[0].sizes()), n.dweight_d, dwi_0, dwi_1, dwo, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

FeedForwardSublayer::FeedForwardSublayer(int64_t d_model, int64_t d_ff, double dropout, const std::string& name)
    : dropout_(dropout) {
  dense_ = register_module(name, std::make_shared<torch::nn::Module>());
  wi_ = AddWeight(dense_.get(), "wi", {d_ff, d_model});
  wo_ = AddWeight(dense_.get(), "wo", {d_model, d_ff});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void FeedForwardSublayer::Initialise(at::Generator generator) {
  for (const auto& weight : {wi_, wo_})
    FillNormal(**weight, std::pow(static_cast<double>((**weight).size(1)), -0.5), generator);
}

at::Tensor FeedForwardSublayer::forward(const at::Tensor& x_btd, const StackContext&) {
  const double p = is_training() ? dropout_ : 0;
  const int64_t rows = x_btd.size(0) * x_btd.size(1);
  const at::Tensor h_mask = DropoutMask({rows, (**wi_).size(0)}, x_btd.options(), p);
  const at::Tensor y_mask = DropoutMask({rows, x_btd.size(2)}, x_btd.options(), p);
  return FeedForwardFunction::apply(x_btd, norm_->weight(), **wi_, **wo_, Maybe(h_mask), Maybe(y_mask));
}

GatedFeedForwardSublayer::GatedFeedForwardSublayer(int64_t d_model, int64_t d_ff, Activation activation, double dropout)
    : activation_(activation), dropout_(dropout) {
  dense_ = register_module("DenseReluDense", std::make_shared<torch::nn::Module>());
  wi_0_ = AddWeight(dense_.get(), "wi_0", {d_ff, d_model});
  wi_1_ = AddWeight(dense_.get(), "wi_1", {d_ff, d_model});
  wo_ = AddWeight(dense_.get(), "wo", {d_model, d_ff});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void GatedFeedForwardSublayer::Initialise(at::Generator generator) {
  for (const auto& weight : {wi_0_, wi_1_, wo_})
    FillNormal(**weight, std::pow(static_cast<double>((**weight).size(1)), -0.5), generator);
}

at::Tensor GatedFeedForwardSublayer::forward(const at::Tensor& x_btd, const StackContext&) {
  const double p = is_training() ? dropout_ : 0;
  const int64_t rows = x_btd.size(0) * x_btd.size(1);
  const at::Tensor h_mask = DropoutMask({rows, (**wi_0_).size(0)}, x_btd.options(), p);
  const at::Tensor y_mask = DropoutMask({rows, x_btd.size(2)}, x_btd.options(), p);
  return GatedFunction::apply(x_btd, norm_->weight(), **wi_0_, **wi_1_, **wo_, Maybe(h_mask), Maybe(y_mask),
                              static_cast<int64_t>(activation_));
}

}  // namespace allometry::trainer
