#pragma once

#include "worker/trainer/layers/attention.h"

namespace allometry::trainer {

// Means of positions 2 i and 2 i + 1 that are not padding, [b, t, d] to [b, t / 2, d]; 0 where both are. `keep_bs1` is
// 1, or 0 at padding.
at::Tensor PoolPairs(const at::Tensor& x_btd, const at::Tensor& keep_bs1);

// Self-attention that halves its sequence (Dai et al. 2020, arXiv 2006.03236), in an encoder. `context` has the keys'
// mask and keep, and as positions the bias [h, q, k] of as many queries as there are, never the table.
//   kQuery            pool x + attention(queries pool norm x, keys and values norm x): half as many queries
//   kAfterAttention   pool (x + attention(norm x)): as many queries as keys
enum class PoolWhat { kQuery, kAfterAttention };

class PoolingAttentionSublayer : public AttentionSublayer {
 public:
  PoolingAttentionSublayer(const arch::Shape& shape, PoolWhat pool, double dropout);
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;

 private:
  at::Tensor PooledQueryAttention(const at::Tensor& x_btd, const StackContext& context);

  PoolWhat pool_;
};

}  // namespace allometry::trainer
