#pragma once

#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// y[b][t][c] = sum_j p[b][t][j][k] x[b][t + first + j][c], zero outside, where p is the softmax of the logits
// [b, t, width, k] over j, and each of the k kernels serves c / k neighbouring channels. Differentiable, keeping only
// x, logits and y; profilers see it as "allometry::dynamic_convolution".
at::Tensor DynamicConvolution(const at::Tensor& x_btc, const at::Tensor& logits_btwk, int64_t first);

// x + dynamic convolution of norm x (Wu et al. 2019, arXiv 1901.10430): as LightConvolutionSublayer, but each
// position's kernels are a linear function of the gated input there.
class DynamicConvolutionSublayer : public Sublayer {
 public:
  // `kernels` divides d_model; each is shared by d_model / kernels neighbouring channels.
  DynamicConvolutionSublayer(int64_t d_model, int64_t kernels, bool causal, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  // Keeps the gated inputs of the last width - 1 positions. Causal only.
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  at::Tensor Gated(const at::Tensor& x_btd) const;
  at::Tensor Logits(const at::Tensor& gated_btd) const;  // [b, t, width, kernels]
  at::Tensor Output(const at::Tensor& mixed_btd) const;

  int64_t d_model_, kernels_, first_;
  double dropout_;
  std::shared_ptr<torch::nn::Module> convolution_;
  std::shared_ptr<Weight> input_, kernel_, pointwise_, output_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace allometry::trainer
