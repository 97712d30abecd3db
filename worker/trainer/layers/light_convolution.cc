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

at::Tensor LightConvolutionSublayer::Kernel(at::ScalarType type) const {
  const at::Tensor taps_wk = at::softmax((**kernel_).to(ops::SumType(type)), -1).t();
  return kernels_ == d_model_ ? taps_wk : taps_wk.repeat_interleave(d_model_ / kernels_, 1);
}

at::Tensor LightConvolutionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  at::Tensor gated = SigmoidGlu(at::linear(norm_->forward(x_btd), **input_));
  if (context.keep_bs1.defined()) gated = gated * context.keep_bs1;
  const at::Tensor mixed = DepthwiseConvolution(gated, Kernel(x_btd.scalar_type()), first_);
  const at::Tensor out = at::linear(at::linear(mixed, **pointwise_), **output_);
  return x_btd + Drop(out, dropout_, is_training());
}

at::Tensor LightConvolutionSublayer::Step(const at::Tensor& x_b1d, const StackContext&, LayerCache& cache) {
  TORCH_CHECK(first_ == 1 - kConvolutionWidth, "only a causal convolution goes step by step");
  const at::Tensor gated = SigmoidGlu(at::linear(norm_->forward(x_b1d), **input_));
  std::vector<at::Tensor>& kept = cache.tensors;  // gated inputs [b, width - 1, d] and the kernel [width, d]
  if (kept.empty())
    kept = {at::zeros({x_b1d.size(0), kConvolutionWidth - 1, d_model_}, gated.options()), Kernel(x_b1d.scalar_type())};
  const at::Tensor window = at::cat({kept[0], gated}, 1);
  kept[0] = window.slice(1, 1);
  const at::Tensor mixed =
      (window.to(kept[1].scalar_type()) * kept[1]).sum(1, /*keepdim=*/true).to(x_b1d.scalar_type());
  return x_b1d + at::linear(at::linear(mixed, **pointwise_), **output_);
}

}  // namespace allometry::trainer
