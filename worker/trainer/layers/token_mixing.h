#pragma once

#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// x + W2 gelu(W1 norm x) over positions, alike for every channel (Tolstikhin et al. 2021, arXiv 2105.01601), with
// padding zero and gelu in its tanh form. Shorter sequences than `length` count as padded to it: the products with what
// is not there are left out. Longer ones are refused.
//
// Causal: hidden unit j of h reads positions <= floor(j length / h) and feeds positions >= it; the other weights are
// masked, and keep their parameters.
class TokenMixingSublayer : public Sublayer {
 public:
  TokenMixingSublayer(int64_t d_model, int64_t hidden, int64_t length, bool causal, double dropout);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  // Keeps the hidden units' sums over the positions so far: a unit that a position reads is complete by then.
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  // W1 [h, length] and W2 [length, h], masked if causal.
  struct Weights {
    at::Tensor read_ht, write_th;
  };
  Weights MaskedWeights() const;

  int64_t hidden_, length_;
  bool causal_;
  double dropout_;
  std::shared_ptr<torch::nn::Module> mixing_;
  std::shared_ptr<Weight> wi_, wo_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace allometry::trainer
