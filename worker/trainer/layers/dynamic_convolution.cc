#include "worker/trainer/layers/dynamic_convolution.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "worker/trainer/layers/light_convolution.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct DynamicConvolutionFunction : torch::autograd::Function<DynamicConvolutionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_btc, const at::Tensor& logits_btwk,
                            int64_t first) {
    const at::Tensor x = x_btc.contiguous(), logits = logits_btwk.contiguous();
    RECORD_FUNCTION("allometry::dynamic_convolution", std::vector<c10::IValue>({x, logits}));
    const at::Tensor y = ops::DynamicConvolve(x, logits, first);
    context->save_for_backward({x, logits, y});
    context->saved_data["first"] = first;
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const int64_t first = context->saved_data["first"].toInt();
    const ops::DynamicConvolutionGradients out =
        ops::DynamicConvolveBackward(saved[0], saved[1], saved[2], gradients[0].contiguous(), first);
    return {out.dx_btc, out.dlogits_btwk, at::Tensor()};
  }
};

}  // namespace

at::Tensor DynamicConvolution(const at::Tensor& x_btc, const at::Tensor& logits_btwk, int64_t first) {
  return DynamicConvolutionFunction::apply(x_btc, logits_btwk, first);
}

DynamicConvolutionSublayer::DynamicConvolutionSublayer(int64_t d_model, int64_t kernels, bool causal, double dropout)
    : d_model_(d_model),
      kernels_(kernels),
      first_(causal ? 1 - kConvolutionWidth : -(kConvolutionWidth / 2)),
      dropout_(dropout) {
  convolution_ = register_module("DynamicConvolution", std::make_shared<torch::nn::Module>());
  input_ = AddWeight(convolution_.get(), "input", {2 * d_model, d_model});
  kernel_ = AddWeight(convolution_.get(), "kernel", {kConvolutionWidth * kernels, d_model});  // row j * kernels + k
  pointwise_ = AddWeight(convolution_.get(), "pointwise", {d_model, d_model});
  output_ = AddWeight(convolution_.get(), "output", {d_model, d_model});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void DynamicConvolutionSublayer::Initialise(at::Generator generator) {
  for (const auto& weight : {input_, kernel_, pointwise_, output_})
    FillNormal(**weight, std::pow(static_cast<double>(d_model_), -0.5), generator);
}

at::Tensor DynamicConvolutionSublayer::Gated(const at::Tensor& x_btd) const {
  return SigmoidGlu(at::linear(norm_->forward(x_btd), **input_));
}

at::Tensor DynamicConvolutionSublayer::Logits(const at::Tensor& gated_btd) const {
  return at::linear(gated_btd, **kernel_).view({gated_btd.size(0), gated_btd.size(1), kConvolutionWidth, kernels_});
}

at::Tensor DynamicConvolutionSublayer::Output(const at::Tensor& mixed_btd) const {
  return at::linear(at::linear(mixed_btd, **pointwise_), **output_);
}

at::Tensor DynamicConvolutionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  at::Tensor gated = Gated(x_btd);
  if (context.keep_bs1.defined()) gated = gated * context.keep_bs1;
  const at::Tensor out = Output(DynamicConvolution(gated, Logits(gated), first_));
  return x_btd + Drop(out, dropout_, is_training());
}

at::Tensor DynamicConvolutionSublayer::Step(const at::Tensor& x_b1d, const StackContext&, LayerCache& cache) {
  TORCH_CHECK(first_ == 1 - kConvolutionWidth, "only a causal convolution goes step by step");
  const at::Tensor gated = Gated(x_b1d);
  std::vector<at::Tensor>& kept = cache.tensors;  // gated inputs [b, width - 1, d]
  if (kept.empty()) kept = {at::zeros({x_b1d.size(0), kConvolutionWidth - 1, d_model_}, gated.options())};
  const at::Tensor window = at::cat({kept[0], gated}, 1);
  kept[0] = window.slice(1, 1);
  const at::Tensor p_bwk = at::softmax(ops::Wide(Logits(gated)), 2).squeeze(1);
  const at::Tensor mixed = (ops::Wide(ops::ByKernel(window, kernels_)) * p_bwk.unsqueeze(-1)).sum(1);
  return x_b1d + Output(mixed.to(x_b1d.scalar_type()).view(x_b1d.sizes()));
}

}  // namespace allometry::trainer
