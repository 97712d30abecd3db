#include "worker/trainer/layers/separable_convolution.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/trainer/layers/light_convolution.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {

SeparableConvolution::SeparableConvolution(int64_t from, int64_t to, int64_t width, int64_t first)
    : width_(width), first_(first) {
  depthwise_ = AddWeight(this, "depthwise", {from, width});
  pointwise_ = AddWeight(this, "pointwise", {to, from});
}

void SeparableConvolution::Initialise(at::Generator generator) {
  for (const auto& weight : {depthwise_, pointwise_})
    FillNormal(**weight, std::pow(static_cast<double>((**weight).size(1)), -0.5), generator);
}

at::Tensor SeparableConvolution::Kernel() const {
  return (**depthwise_).to(ops::SumType((**depthwise_).scalar_type())).t();
}

at::Tensor SeparableConvolution::forward(const at::Tensor& x_btc) {
  return at::linear(DepthwiseConvolution(x_btc, Kernel(), first_), **pointwise_);
}

at::Tensor SeparableConvolution::Step(const at::Tensor& x_b1c, at::Tensor& window) {
  TORCH_CHECK(first_ == 1 - width_, "only a causal convolution goes step by step");
  if (!window.defined()) window = at::zeros({x_b1c.size(0), width_ - 1, x_b1c.size(2)}, x_b1c.options());
  const at::Tensor taps_bwc = at::cat({window, x_b1c}, 1), kernel = Kernel();
  window = taps_bwc.slice(1, 1);
  const at::Tensor mixed = (taps_bwc.to(kernel.scalar_type()) * kernel).sum(1, /*keepdim=*/true);
  return at::linear(mixed.to(x_b1c.scalar_type()), **pointwise_);
}

}  // namespace allometry::trainer
