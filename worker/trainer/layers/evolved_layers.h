#pragma once

#include "worker/trainer/layers/attention.h"
#include "worker/trainer/layers/separable_convolution.h"

namespace allometry::trainer {

// The parts of the Evolved Transformer's layers (So et al. 2019, arXiv 1901.11117) that the backbone has not. Each is
// pre-norm and residual. Matrices are initialised with (inputs of a unit)^-0.5.

// x + u * sigmoid(v), with u and v two maps of norm x.
class GatedLinearUnitSublayer : public Sublayer {
 public:
  GatedLinearUnitSublayer(int64_t d_model, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache&) override {
    return forward(x_b1d, context);
  }

 private:
  double dropout_;
  std::shared_ptr<torch::nn::Module> unit_;
  std::shared_ptr<Weight> input_;
  std::shared_ptr<RmsNorm> norm_;
};

// x + separable9(norm(relu(dense(h)) + relu(dense3(h)))), h = norm x. Widths: dense 4 d, dense3 d / 2 padded with zeros
// to 4 d, separable9 d / 2 padded with zeros to d. Both convolutions read zeros where the input is padding.
class EncoderConvolutionSublayer : public Sublayer {
 public:
  EncoderConvolutionSublayer(int64_t d_model, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  at::Tensor Step(const at::Tensor&, const StackContext&, LayerCache&) override;  // never: it looks ahead

 private:
  int64_t d_model_;
  double dropout_;
  std::shared_ptr<torch::nn::Module> convolution_;
  std::shared_ptr<Weight> left_, right_;  // [4 d, d], and [d / 2, 3 d] with the three offsets' inputs side by side
  std::shared_ptr<RmsNorm> hidden_norm_, norm_;
  std::shared_ptr<SeparableConvolution> output_;
};

// x + self-attention(h) + cross-attention(h), h = norm x. Self-attention has `wide_heads` heads and the context's
// wide_positions.
class DualAttentionSublayer : public Sublayer {
 public:
  DualAttentionSublayer(const arch::Shape& shape, int64_t wide_heads, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  double dropout_;
  std::shared_ptr<Attention> self_, cross_;
  std::shared_ptr<RmsNorm> norm_;
};

// x + separable7(norm(relu(separable11(h)) + separable7(h))), h = norm x, all causal. Widths: left 2 d, right d / 2
// padded with zeros to 2 d, output d.
class DecoderConvolutionSublayer : public Sublayer {
 public:
  DecoderConvolutionSublayer(int64_t d_model, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  // Keeps the last inputs of each of the three convolutions.
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  at::Tensor Join(const at::Tensor& left_btc, const at::Tensor& right_btc);

  int64_t d_model_;
  double dropout_;
  std::shared_ptr<torch::nn::Module> convolution_;
  std::shared_ptr<SeparableConvolution> left_, right_, output_;
  std::shared_ptr<RmsNorm> hidden_norm_, norm_;
};

// x + swish(norm(x) wi) wo, swish z = z sigmoid z.
class SwishFeedForwardSublayer : public Sublayer {
 public:
  SwishFeedForwardSublayer(int64_t d_model, int64_t d_ff, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache&) override {
    return forward(x_b1d, context);
  }

 private:
  double dropout_;
  std::shared_ptr<torch::nn::Module> dense_;
  std::shared_ptr<Weight> wi_, wo_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace allometry::trainer
