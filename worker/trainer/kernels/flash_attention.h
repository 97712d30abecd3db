#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/trainer/layers/kernels.h"

// Attention with T5's bucketed position bias on a GPU: out = softmax(q k^T + bias + mask) v, scale 1, forward and
// backward, bfloat16 in and out, float32 within. Neither scores, probabilities nor bias are ever stored: the forward
// pass is FlashAttention-2's (Dao 2023, arXiv 2307.08691), which keeps one log-sum-exp a row; the bias is looked up by
// key - query in a table of distances made from T5's buckets (arXiv 1910.10683), and its gradient is reduced inside the
// kernel to [32, heads].
//
// Deterministic: no atomics; every sum has one order, which depends on the shapes alone. One call's work is queued on
// one stream and can be captured in a graph. Not thread-safe for one workspace; otherwise stateless.
namespace allometry::trainer::kernels {

using Stream = void*;  // a cudaStream_t

// Strides of a [batch, heads, rows, depth] tensor, in values; the last dimension is dense. Multiples of 8, the data
// aligned to 16 bytes: so are the slices of a packed projection [batch, rows, 3 heads depth].
struct HeadStrides {
  int64_t batch = 0, head = 0, row = 0;
};

struct AttentionShape {
  int32_t batch = 0, heads = 0, queries = 0, keys = 0;
  int32_t depth = 0;    // a multiple of 8, at most 128; padded within to 32, 64 or 128
  bool causal = false;  // key i is seen by queries i and later; also makes the buckets those of a decoder
};

struct AttentionInputs {
  AttentionShape shape;
  const Bf16 *q = nullptr, *k = nullptr, *v = nullptr;
  HeadStrides q_strides, k_strides, v_strides;
  // [32, heads], dense: float32, or bfloat16 if table_is_bf16. Null: no bias, as in cross-attention.
  const void* table = nullptr;
  bool table_is_bf16 = false;
  // [batch, keys], dense, added to the scores; null: nothing. At most -1e30 hides a key; where all of a row's keys are
  // hidden, the row is the mean of the visible values, as the plain implementation's softmax over equal scores gives.
  const float* mask = nullptr;
};

// Why these inputs must take the plain way, or null if the kernels take them.
const char* FlashAttentionRefuses(const AttentionInputs& inputs);

// out [batch, heads, queries, depth] as its strides say; lse [batch, heads, queries], dense, for the backward pass
// (null if there is none).
void FlashAttentionForward(const AttentionInputs& inputs, Bf16* out, const HeadStrides& out_strides, float* lse,
                           Stream stream);

struct AttentionGradients {
  const Bf16 *out = nullptr, *dout = nullptr;
  HeadStrides out_strides, dout_strides;
  const float* lse = nullptr;  // as the forward pass wrote it
  Bf16 *dq = nullptr, *dk = nullptr, *dv = nullptr;
  HeadStrides dq_strides, dk_strides, dv_strides;
  // [32, heads], dense float32, or null if not wanted. `add_to_table` adds to what is there: a stack's layers share it.
  float* dtable = nullptr;
  bool add_to_table = false;
};

// Bytes of device memory, aligned to 16, that the backward pass works in: 16 a row of queries and 128 a block of them.
size_t FlashAttentionWorkspaceBytes(const AttentionShape& shape);

void FlashAttentionBackward(const AttentionInputs& inputs, const AttentionGradients& gradients, void* workspace,
                            Stream stream);

}  // namespace allometry::trainer::kernels
