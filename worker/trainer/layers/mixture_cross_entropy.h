#pragma once

#include <ATen/core/Tensor.h>

#include "worker/trainer/layers/cross_entropy.h"

namespace allometry::trainer {

// K softmaxes over one vocabulary for each of n tokens: p = sum_k prior_k softmax(hidden_k table^T). Everything after
// the product with the table is in the sum type (float32, or float64 for float64) and in log space, so that it is
// finite wherever the logits are.
struct Mixture {
  at::Tensor hidden_nkd;
  at::Tensor log_prior_nk;  // sum type
  at::Tensor table_vd;
};

// log softmax over the last dimension, in the sum type.
at::Tensor LogPrior(const at::Tensor& logits_nk);

// Log-probabilities [n, v]: one softmax at a time, so that no K of them exist at once.
at::Tensor MixtureLogProbabilities(const Mixture& mixture);

// Sum over tokens of the negative log-likelihood (nats) of targets [n]; tokens with target 0 count nothing. The forward
// pass computes the gradients too, and holds about as many logits at once as one softmax over all tokens would have
// (n v, bounded as in LinearCrossEntropySum); backward may therefore be called only once.
at::Tensor MixtureCrossEntropySum(const Mixture& mixture, const at::Tensor& targets_n);

// The same with a z-loss: the mixed probabilities sum to 1 as they stand, so each token with a target pays
// z sum_k prior_k log(Z_k)^2 for its softmaxes' divisors.
ZLoss MixtureCrossEntropyWithZLoss(const Mixture& mixture, const at::Tensor& targets_n, double z);

// The likelihoods one by one [n], 0 where the target is 0. No gradient.
at::Tensor MixtureCrossEntropyRows(const Mixture& mixture, const at::Tensor& targets_n);

}  // namespace allometry::trainer
