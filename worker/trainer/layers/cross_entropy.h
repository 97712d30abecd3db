#pragma once

#include <ATen/core/Tensor.h>

namespace allometry::trainer {

// Sum over rows of the negative log-likelihood (nats) of targets [n] under softmax(hidden [n, d] table^T [d, v]); rows
// with target 0 count nothing. Scalar in the sum type. The forward pass computes the gradients too, chunk by chunk, so
// that only one chunk of logits exists at a time, and once; backward may therefore be called only once.
at::Tensor LinearCrossEntropySum(const at::Tensor& hidden_nd, const at::Tensor& table_vd, const at::Tensor& targets_n);

// The same with a z-loss (as in Chowdhery et al. 2022, arXiv 2204.02311): each row with a target costs z log(Z)^2 more,
// Z being the softmax's divisor, which keeps logits from drifting where the likelihood cannot see it.
struct ZLoss {
  at::Tensor objective_sum;  // likelihoods and z-loss, with gradient
  at::Tensor nll_sum;        // the likelihoods alone, without gradient: what is reported
};
ZLoss LinearCrossEntropyWithZLoss(const at::Tensor& hidden_nd, const at::Tensor& table_vd, const at::Tensor& targets_n,
                                  double z);

// The likelihoods one by one [n], 0 where the target is 0. No gradient.
at::Tensor LinearCrossEntropyRows(const at::Tensor& hidden_nd, const at::Tensor& table_vd, const at::Tensor& targets_n);

}  // namespace allometry::trainer
