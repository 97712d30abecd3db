#pragma once

#include "worker/trainer/layers/kernels.h"
#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// x + relu(norm(x) wi) wo: T5's "DenseReluDense"; Hugging Face's Switch Transformer calls the same "mlp".
class FeedForwardSublayer : public Sublayer {
 public:
  FeedForwardSublayer(int64_t d_model, int64_t d_ff, double dropout, const std::string& name = "DenseReluDense");
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

// x + (act(norm(x) wi_0) * norm(x) wi_1) wo (Shazeer 2020, arXiv 2002.05202), with the names of T5 v1.1.
class GatedFeedForwardSublayer : public Sublayer {
 public:
  GatedFeedForwardSublayer(int64_t d_model, int64_t d_ff, Activation activation, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache&) override {
    return forward(x_b1d, context);
  }

 private:
  Activation activation_;
  double dropout_;
  std::shared_ptr<torch::nn::Module> dense_;
  std::shared_ptr<Weight> wi_0_, wi_1_, wo_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace allometry::trainer
