#pragma once

#include "worker/trainer/kernels/tensor_kernels.h"

// Attention on a GPU without stored scores or bias (kernels/flash_attention.h), of rows as the projections leave them.
// Without autograd: a layer's own function calls both passes.
namespace allometry::trainer::ops::device {

struct AttentionCall {
  // [b queries, h e] and [b keys, h e], bfloat16, each row dense: slices of one packed projection will do.
  at::Tensor q_rows, k_rows, v_rows;
  at::Tensor table;    // relative positions [32, h], float32 or bfloat16; undefined: no bias
  at::Tensor mask_bk;  // 0, or as low as possible at padding, float32; undefined: no padding
  int64_t batch = 1, heads = 1;
  bool causal = false;
  // Of the probabilities; `seed` is an int64 [1] on the device. Both passes must be given the same.
  double dropout = 0;
  at::Tensor seed;
  int64_t layer = 0, first_example = 0;
};

// Whether the kernels take it; if not (another type, another depth, rows that are not aligned), the layer multiplies,
// ops::SoftmaxForward and so on.
bool TakesAttention(const AttentionCall& call);

struct AttentionResult {
  at::Tensor out_rows;  // [b queries, h e]
  at::Tensor lse_bhq;   // float32
};
AttentionResult AttentionForward(const kernels::KernelTable& table, const AttentionCall& call);

struct AttentionRowGradients {
  at::Tensor dq_rows, dk_rows, dv_rows;
  at::Tensor dtable;  // [32, h], float32; undefined unless wanted
};
AttentionRowGradients AttentionBackward(const kernels::KernelTable& table, const AttentionCall& call,
                                        const AttentionResult& result, const at::Tensor& dout_rows, bool want_table);

}  // namespace allometry::trainer::ops::device
