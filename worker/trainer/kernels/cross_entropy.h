#pragma once

#include "worker/trainer/kernels/types.h"

// The likelihoods of a chunk of logits, which become their own gradient in place: between the product that makes logits
// and the products that use up their gradient, as layers/cross_entropy.cc and mixture_cross_entropy.cc take them. Rows
// of up to 32768 bfloat16 or 16384 float32 values are read once and written once; longer ones are read twice behind
// that.
namespace allometry::trainer::kernels {

// With log Z = log sum exp logits and a target other than 0:
//   nll = log Z - logits[target];   z_loss = z (log Z)^2
//   logits <- softmax (1 + 2 z log Z), less 1 at the target
// A row whose target is 0 counts nothing: its likelihood, z-loss and gradient are 0. One whose target lies outside the
// vocabulary gives NaN.
struct CrossEntropyArgs {
  void* logits = nullptr;            // [n, v]
  const int64_t* targets = nullptr;  // [n]
  float* nll = nullptr;              // [n]
  float* z_loss = nullptr;           // [n] or null
  int64_t n = 0, v = 0;
  float z = 0;
  bool gradient = false;  // otherwise the logits stay
};

// A mixture of softmaxes (Yang et al. 2018, arXiv 1711.03953) for each token, with joint_k = log_prior_k - nll_k:
//   nll = -log sum_k exp joint_k;   share_k = softmax(joint)_k
//   z_loss = z sum_k exp(log_prior_k) (log Z_k)^2
//   logits_k <- softmax_k (share_k + 2 z exp(log_prior_k) log Z_k), less share_k at the target
//   dlog_prior_k = -share_k + z exp(log_prior_k) (log Z_k)^2
// At most kMostSoftmaxes of them. Targets as above.
struct MixtureArgs {
  void* logits = nullptr;            // [n, k, v]
  const float* log_prior = nullptr;  // [n, k]
  const int64_t* targets = nullptr;  // [n]
  float* nll = nullptr;              // [n]
  float* z_loss = nullptr;           // [n] or null
  float* dlog_prior = nullptr;       // [n, k]; with gradient
  int64_t n = 0, k = 0, v = 0;
  float z = 0;
  bool gradient = false;
};

constexpr int64_t kMostSoftmaxes = 32;

}  // namespace allometry::trainer::kernels
