#pragma once

#include "worker/trainer/kernels/types.h"

// Softmax over the keys of attention scores that are stored, as ops::SoftmaxForward and SoftmaxBackward.
namespace allometry::trainer::kernels {

// scores [batch heads, q, k] <- softmax over k of scores + bias[h] + mask[b], in place. A row that is -inf throughout
// becomes NaN, as everywhere.
struct SoftmaxForwardArgs {
  void* scores = nullptr;
  const float* bias = nullptr;  // [heads, q, k] or null
  const float* mask = nullptr;  // [batch, k] or null
  int64_t batch = 0, heads = 0, q = 0, k = 0;
};

// dp <- p (dp - sum_k p dp), in place. dbias is the sum of that over the batch, taken in the batch's order.
struct SoftmaxBackwardArgs {
  const void* p = nullptr;  // [batch heads, q, k]
  void* dp = nullptr;
  float* dbias = nullptr;  // [heads, q, k] or null
  int64_t batch = 0, heads = 0, q = 0, k = 0;
};

}  // namespace allometry::trainer::kernels
