#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "worker/trainer/kernels/attention_dropout.h"
#include "worker/trainer/kernels/types.h"

// Attention with T5's bucketed position bias on a GPU: out = softmax(q k^T + bias + mask) v, scale 1, forward and
// backward, bfloat16 in and out, float32 within. Neither scores, probabilities nor bias are ever stored: the forward
// pass is FlashAttention-2's (Dao 2023, arXiv 2307.08691), which keeps one log-sum-exp a row; the bias is looked up by
// key - query in a table of distances made from T5's buckets (Raffel et al. 2020, arXiv 1910.10683), and its gradient
// is reduced inside the kernel to [32, heads].
namespace allometry::trainer::kernels {

// Strides of a [batch, heads, rows, depth] tensor, in values; the last dimension is dense. Multiples of 8, the data
// aligned to 16 bytes: so are the slices of a packed projection [batch, rows, 3 heads depth].
struct HeadStrides {
  int64_t batch = 0, head = 0, row = 0;
};
template <typename T>
struct HeadRows {
  T* data = nullptr;
  HeadStrides strides;
};

struct AttentionShape {
  int batch = 0, heads = 0, queries = 0, keys = 0;
  int depth = 0;        // a multiple of 8, at most 128; padded within to 32, 64 or 128
  bool causal = false;  // key i is seen by queries i and later; the buckets are then a decoder's
};

// What both passes read.
struct AttentionInputs {
  AttentionShape shape;
  HeadRows<const Bf16> q, k, v;
  // [32, heads], dense: float32, or bfloat16. Null: no bias, as in cross-attention.
  const void* table = nullptr;
  DataType table_type = DataType::kFloat32;
  // [batch, keys], dense, added to the scores; null: nothing. At most -1e30 hides a key; where all of a row's keys are
  // hidden, the row is the mean of the values that it may see, as the plain softmax over equal scores has it.
  const float* mask = nullptr;
  AttentionDropout dropout;  // of the probabilities; the same in both passes
};

struct AttentionForwardArgs {
  AttentionInputs in;
  HeadRows<Bf16> out;
  float* lse = nullptr;  // [batch, heads, queries], dense, for the backward pass; null if there is none
};

struct AttentionBackwardArgs {
  AttentionInputs in;
  HeadRows<const Bf16> out, dout;
  const float* lse = nullptr;
  HeadRows<Bf16> dq, dk, dv;
  // [32, heads], dense float32, or null if not wanted. `add_to_table` adds to what is there: a stack's layers share it.
  float* dtable = nullptr;
  bool add_to_table = false;
  void* workspace = nullptr;  // AttentionWorkspaceBytes(in.shape), aligned to 16; one call at a time works in it
};

// Why the kernels do not take attention of a shape, or null if they do.
inline const char* AttentionShapeRefusal(const AttentionShape& shape) {
  if (shape.batch < 1 || shape.heads < 1 || shape.queries < 1 || shape.keys < 1) return "an empty tensor";
  if (shape.batch > 65535 || shape.heads > 65535) return "more than 65535 examples or heads";
  if (shape.depth < 8 || shape.depth > 128 || shape.depth % 8 != 0) return "a depth that is no multiple of 8 up to 128";
  return nullptr;
}
// The same of inputs. The other tensors must be aligned likewise.
inline const char* AttentionRefusal(const AttentionInputs& in) {
  if (const char* refusal = AttentionShapeRefusal(in.shape)) return refusal;
  if (in.dropout.seed && in.dropout.rate >= 65536) return "a dropout of everything";
  for (const HeadRows<const Bf16>& rows : {in.q, in.k, in.v})
    if (reinterpret_cast<uintptr_t>(rows.data) % 16 != 0 || rows.strides.batch % 8 != 0 || rows.strides.head % 8 != 0 ||
        rows.strides.row % 8 != 0)
      return "rows that are not aligned to 16 bytes";
  return nullptr;
}

constexpr int kAttentionBuckets = 32;

// Rows of a block, and with it of one partial sum of the table's gradient.
constexpr int AttentionBlockRows(int depth) { return depth <= 64 ? 128 : 64; }

// Four numbers a row of queries, and 32 a block of them.
constexpr size_t AttentionRowsBytes(const AttentionShape& shape) {
  return static_cast<size_t>(shape.batch) * static_cast<size_t>(shape.heads) * static_cast<size_t>(shape.queries) * 16;
}
constexpr size_t AttentionWorkspaceBytes(const AttentionShape& shape) {
  const int rows = AttentionBlockRows(shape.depth), blocks = (shape.queries + rows - 1) / rows;
  return AttentionRowsBytes(shape) +
         static_cast<size_t>(shape.batch) * static_cast<size_t>(shape.heads) * static_cast<size_t>(blocks) * 128;
}

}  // namespace allometry::trainer::kernels
