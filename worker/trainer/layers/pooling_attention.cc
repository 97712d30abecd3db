#include "worker/trainer/layers/pooling_attention.h"

#include <ATen/ATen.h>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {

at::Tensor PoolPairs(const at::Tensor& x_btd, const at::Tensor& keep_bs1) {
  const int64_t batch = x_btd.size(0), half = x_btd.size(1) / 2;
  const at::Tensor counts = keep_bs1.view({batch, half, 2, 1}).sum(2).clamp_min(1);
  return (x_btd * keep_bs1).view({batch, half, 2, x_btd.size(2)}).sum(2) / counts;
}

PoolingAttentionSublayer::PoolingAttentionSublayer(const arch::Shape& shape, PoolWhat pool, double dropout)
    : AttentionSublayer(shape, /*is_cross=*/false, /*with_table=*/false, dropout), pool_(pool) {}

at::Tensor PoolingAttentionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  if (pool_ == PoolWhat::kQuery) return PoolPairs(x_btd, context.keep_bs1) + PooledQueryAttention(x_btd, context);
  return PoolPairs(AttentionSublayer::forward(x_btd, context), context.keep_bs1);
}

at::Tensor PoolingAttentionSublayer::PooledQueryAttention(const at::Tensor& x_btd, const StackContext& context) {
  const at::Tensor normed = norm_->forward(x_btd), pooled = PoolPairs(normed, context.keep_bs1);
  const int64_t batch = x_btd.size(0), heads = attention_->heads();
  const auto project = [&](const at::Tensor& x, const at::Tensor& weight) {  // to [b, h, t, e]
    return at::linear(x, weight).view({batch, x.size(1), heads, -1}).transpose(1, 2);
  };
  const at::Tensor k = project(normed, attention_->k()), v = project(normed, attention_->v());
  const at::Tensor scores = at::matmul(project(pooled, attention_->q()), k.transpose(2, 3));
  const at::Tensor logits = scores.to(ops::SumType(x_btd.scalar_type())) + context.positions.bias_hqk +
                            context.mask_bs.view({batch, 1, 1, -1});
  const at::Tensor p = Drop(at::softmax(logits, -1).to(x_btd.scalar_type()), dropout_, is_training());
  const at::Tensor mixed = at::matmul(p, v).transpose(1, 2).flatten(2);
  return Drop(at::linear(mixed, attention_->o()), dropout_, is_training());
}

}  // namespace allometry::trainer
