#pragma once

#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// A depthwise convolution over offsets first, ..., first + width - 1, one kernel per channel, then a pointwise one
// (Chollet 2017, arXiv 1610.02357). No bias and nothing between them; zeros outside the sequence.
class SeparableConvolution : public torch::nn::Module {
 public:
  SeparableConvolution(int64_t from, int64_t to, int64_t width, int64_t first);
  // Depthwise width^-0.5, pointwise from^-0.5.
  void Initialise(at::Generator generator);
  at::Tensor forward(const at::Tensor& x_btc);  // [b, t, to]
  // One further position of a causal convolution (first = 1 - width). `window` holds the last width - 1 inputs and is
  // undefined at the first step.
  at::Tensor Step(const at::Tensor& x_b1c, at::Tensor& window);

 private:
  at::Tensor Kernel() const;  // [width, from] in the sum type

  int64_t width_, first_;
  std::shared_ptr<Weight> depthwise_, pointwise_;
};

}  // namespace allometry::trainer
