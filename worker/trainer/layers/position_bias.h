#pragma once

#include <ATen/core/Tensor.h>

#include "worker/trainer/kernels/relative_buckets.h"

namespace allometry::trainer {

// Bucket of T5's relative positions (relative_buckets.h), int64 [queries, keys].
at::Tensor RelativeBuckets(int64_t queries, int64_t keys, bool bidirectional);

// Bias [h, n, n] of every query and key of a sequence from the table [32, h], in the sum type (float32, or float64 for
// float64): bidirectional, or causal with -inf where the key lies behind the query. Differentiable in the table.
at::Tensor PositionBias(const at::Tensor& table, int64_t length, bool causal);

// The causal bias of the query at `position` alone, [h, 1, position + 1]: how a decoder that goes step by step has it.
// No gradient.
at::Tensor PositionBiasRow(const at::Tensor& table, int64_t position);

// The relative positions of a stack's self-attention: as a bias or, for attention that never stores one, as the table.
struct Positions {
  at::Tensor bias_hqk;  // position bias and causal mask, sum type
  at::Tensor table;     // [32, h], float32, in its place
  bool causal = false;  // with a table: no query sees a later key
};
// As x [b, t, d] takes them in self-attention whose heads have `depth` values: the table where a GPU's kernels take it
// (device_attention.h), otherwise the bias. Differentiable; none of an undefined table.
Positions PositionsFor(const at::Tensor& table, const at::Tensor& x_btd, int64_t depth, bool causal);
// The bias of either; undefined without positions.
at::Tensor BiasOf(const Positions& positions, int64_t length);

// 0, or as low as possible where the id is padding, [b, s]. `type` is the model's; the mask has its sum type.
at::Tensor PaddingMask(const at::Tensor& ids_bs, at::ScalarType type);

}  // namespace allometry::trainer
