#pragma once

#include <ATen/core/Tensor.h>

namespace allometry::trainer {

// Adaptive computation time (Graves 2016, arXiv 1603.08983) of every position [b, t] by itself. A position stops at the
// first step at which its summed halting probabilities exceed 1 - epsilon, or at the last; that step gets the rest of
// its weight, so that weights sum to 1. Deterministic; differentiable in everything but the number of steps. There is
// no ponder cost. Probabilities, weights and the mean state are of the sum type.
class Halting {
 public:
  static constexpr double kEpsilon = 0.05;

  explicit Halting(const at::Tensor& x_btd);  // gives shape and type
  // Before a step: weighs it by sigmoid(halt . seen) for each position that still runs. `halt_1d` is [1, d].
  void Decide(const at::Tensor& seen_btd, const at::Tensor& halt_1d, bool last);
  // Positions that take the step decided on, bool [b, t, 1].
  const at::Tensor& running() const { return running_; }
  // After the step: its states.
  void Add(const at::Tensor& x_btd);

  at::Tensor mean_state() const;  // [b, t, d] in the type of x
  at::Tensor steps() const;       // taken so far, [b, t], sum type, no gradient

 private:
  at::ScalarType type_;
  at::Tensor sum_bt1_, weight_bt1_, steps_bt1_;
  at::Tensor running_, runs_on_;  // in this step, and after it
  at::Tensor mean_btd_;
};

}  // namespace allometry::trainer
