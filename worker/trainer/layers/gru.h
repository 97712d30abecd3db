#pragma once

#include "worker/trainer/layers/attention.h"

namespace allometry::trainer {

// A GRU (Cho et al. 2014, arXiv 1406.1078) that takes a sublayer's value y into the state x:
//   u, r = sigmoid(W [n; norm y]), c = tanh(W_c [norm (r * x); norm y]), x' = (1 - u) x + u c,
// where n = norm x is what the sublayer itself has read. 6 d^2 weights.
//
// A gate that begins half open halves what the state knew of its token at every one of dozens of applications, and a
// model of such gates does not learn. Gates of reinforcement learning's transformers therefore begin nearly shut, by a
// bias (Parisotto et al. 2019, arXiv 1910.06764). There is no bias here: the state's first coordinate begins as the
// constant 1 and takes its place. Who makes the state must begin it so.
class GruGate : public torch::nn::Module {
 public:
  explicit GruGate(int64_t d_model);
  // (2 d)^-0.5, but u is about sigmoid(-2) where the state's first coordinate is 1, and c keeps the state's coordinates
  // apart: W_c is the identity on the state, and gives its first coordinate nothing of y.
  void Initialise(at::Generator generator);
  at::Tensor forward(const at::Tensor& x_btd, const at::Tensor& n_btd, const at::Tensor& y_btd);

 private:
  std::shared_ptr<Weight> update_reset_, candidate_;  // [2 d, 2 d], [d, 2 d]
  std::shared_ptr<RmsNorm> value_norm_, reset_norm_;
};

// Gate(x, attention(norm x)): the gate is all of the residual. Without dropout and without a position table of its own.
class GruAttentionSublayer : public Sublayer {
 public:
  GruAttentionSublayer(const arch::Shape& shape, bool is_cross);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  bool is_cross_;
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<GruGate> gate_;
};

// Gate(x, relu(norm(x) wi) wo).
class GruFeedForwardSublayer : public Sublayer {
 public:
  GruFeedForwardSublayer(int64_t d_model, int64_t d_ff);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache&) override {
    return forward(x_b1d, context);
  }

 private:
  std::shared_ptr<torch::nn::Module> dense_;
  std::shared_ptr<Weight> wi_, wo_;
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<GruGate> gate_;
};

}  // namespace allometry::trainer
