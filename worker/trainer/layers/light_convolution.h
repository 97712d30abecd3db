#pragma once

#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

constexpr int64_t kConvolutionWidth = 9;

// y[b][t][c] = sum_j kernel[j][c] x[b][t + first + j][c], zero outside; the kernel [width, c] is of the sum type.
// Differentiable; profilers see it as "allometry::light_convolution".
at::Tensor DepthwiseConvolution(const at::Tensor& x_btc, const at::Tensor& kernel_wc, int64_t first);

// u * sigmoid(v) with u and v the halves of the last dimension [., 2 c]. Differentiable.
at::Tensor SigmoidGlu(const at::Tensor& halves);

// x + lightweight convolution of norm x (Wu et al. 2019, arXiv 1901.10430): input GLU, padding zeroed, depthwise
// convolution of width 9 whose kernels are softmax-normalised over their taps, pointwise, output. Offsets -4..4, causal
// -8..0.
class LightConvolutionSublayer : public Sublayer {
 public:
  // `kernels` divides d_model; each is shared by d_model / kernels neighbouring channels.
  LightConvolutionSublayer(int64_t d_model, int64_t kernels, bool causal, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  // Keeps the gated inputs of the last width - 1 positions. Causal only.
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  at::Tensor Kernel(at::ScalarType type) const;  // normalised, [width, d_model], in the sum type

  int64_t d_model_, kernels_, first_;
  double dropout_;
  std::shared_ptr<torch::nn::Module> convolution_;
  std::shared_ptr<Weight> input_, kernel_, pointwise_, output_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace allometry::trainer
