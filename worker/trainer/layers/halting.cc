#include "worker/trainer/layers/halting.h"

#include <ATen/ATen.h>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {

Halting::Halting(const at::Tensor& x_btd) : type_(x_btd.scalar_type()) {
  const auto options = x_btd.options().dtype(ops::SumType(type_)).requires_grad(false);
  sum_bt1_ = at::zeros({x_btd.size(0), x_btd.size(1), 1}, options);
  steps_bt1_ = at::zeros_like(sum_bt1_);
  runs_on_ = at::ones(sum_bt1_.sizes(), options.dtype(at::kBool));
  mean_btd_ = at::zeros(x_btd.sizes(), options);
}

void Halting::Decide(const at::Tensor& seen_btd, const at::Tensor& halt_1d, bool last) {
  running_ = runs_on_;
  steps_bt1_ = steps_bt1_ + running_;
  const at::Tensor p = at::sigmoid(at::linear(seen_btd, halt_1d).to(sum_bt1_.scalar_type()));
  runs_on_ = last ? at::zeros_like(running_) : running_.logical_and(sum_bt1_ + p <= 1 - kEpsilon);
  weight_bt1_ = at::where(runs_on_, p, 1 - sum_bt1_) * running_;
  sum_bt1_ = sum_bt1_ + weight_bt1_;
}

void Halting::Add(const at::Tensor& x_btd) { mean_btd_ = mean_btd_ + weight_bt1_ * x_btd; }

at::Tensor Halting::mean_state() const { return mean_btd_.to(type_); }

at::Tensor Halting::steps() const { return steps_bt1_.squeeze(-1).detach(); }

}  // namespace allometry::trainer
