#include "worker/trainer/layers/light_convolution.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ConvolutionFunction : torch::autograd::Function<ConvolutionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_btc, const at::Tensor& kernel_wc,
                            int64_t first) {
    const at::Tensor x = x_btc.contiguous(), kernel = kernel_wc.contiguous();
    RECORD_FUNCTION("allometry::light_convolution", std::vector<c10::IValue>({x, kernel}));
    context->save_for_backward({x, kernel});
    context->saved_data["first"] = first;
    return ops::Convolve(x, kernel, first);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const int64_t first = context->saved_data["first"].toInt();
    const at::Tensor dy = gradients[0].contiguous();
    return {ops::ConvolveInputGradient(dy, saved[1], first),
            ops::ConvolveKernelGradient(saved[0], dy, saved[1].size(0), first), at::Tensor()};
  }
};

struct GluFunction : torch::autograd::Function<GluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& halves) {
    const int64_t columns = halves.size(-1) / 2;
    const at::Tensor rows = halves.contiguous().view({-1, 2 * columns});
    context->save_for_backward({rows});
    std::vector<int64_t> sizes = halves.sizes().vec();
    sizes.back() = columns;
    return ops::GateForward(Activation::kSigmoid, rows.slice(1, columns), rows.slice(1, 0, columns)).view(sizes);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor rows = context->get_saved_variables()[0];
    const int64_t columns = rows.size(1) / 2;
    const at::Tensor dhalves = at::empty_like(rows), dout = gradients[0].contiguous().view({-1, columns});
    ops::GateBackward(Activation::kSigmoid, rows.slice(1, columns), rows.slice(1, 0, columns), dout,
                      dhalves.slice(1, columns), dhalves.slice(1, 0, columns));
    std::vector<int64_t> sizes = gradients[0].sizes().vec();
    sizes.back() = 2 * columns;
    return {dhalves.view(sizes)};
  }
};

}  // namespace

at::Tensor DepthwiseConvolution(const at::Tensor& x_btc, const at::Tensor& kernel_wc, int64_t first) {
  return ConvolutionFunction::apply(x_btc, kernel_wc, first);
}

at::Tensor SigmoidGlu(const at::Tensor& halves) { return GluFunction::apply(halves); }

LightConvolutionSublayer::LightConvolutionSublayer(int64_t d_model, int64_t kernels, bool causal, double dropout)
    : d_model_(d_model),
      kernels_(kernels),
      first_(causal ? 1 - kConvolutionWidth : -(kConvolutionWidth / 2)),
      dropout_(dropout) {
  convolution_ = register_module("LightConvolution", std::make_shared<torch::nn::Module>());
  input_ = AddWeight(convolution_.get(), "input", {2 * d_model, d_model});
  kernel_ = AddWeight(convolution_.get(), "kernel", {kernels, kConvolutionWidth});
  pointwise_ = AddWeight(convolution_.get(), "pointwise", {d_model, d_model});
  output_ = AddWeight(convolution_.get(), "output", {d_model, d_model});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void LightConvolutionSublayer::Initialise(at::Generator generator) {
  const double d = std::pow(static_cast<double>(d_model_), -0.5);
  FillNormal(**input_, d, generator);
  FillNormal(**kernel_, std::pow(static_cast<double>(kConvolutionWidth), -0.5), generator);
  FillNormal(**pointwise_, d, generator);
  FillNormal(**output_, d, generator);
}

at::Tensor LightConvolutionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  at::Tensor gated = SigmoidGlu(at::linear(norm_->forward(x_btd), **input_));
  if (context.keep_bs1.defined()) gated = gated * context.keep_bs1;
  const at::Tensor taps_kw = at::softmax((**kernel_).to(ops::SumType(x_btd.scalar_type())), -1);
  at::Tensor kernel_wc = taps_kw.t();
  if (kernels_ != d_model_) kernel_wc = kernel_wc.repeat_interleave(d_model_ / kernels_, 1);
  const at::Tensor mixed = DepthwiseConvolution(gated, kernel_wc, first_);
  const at::Tensor out = at::linear(at::linear(mixed, **pointwise_), **output_);
  return x_btd + Drop(out, dropout_, is_training());
}

}  // namespace allometry::trainer
