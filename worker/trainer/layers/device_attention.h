#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/custom_class.h>

#include "worker/trainer/kernels/tensor_kernels.h"
#include "worker/trainer/layers/position_bias.h"

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

// The kernels for attention of x [b, t, d], projected to `heads` of `depth` values each: null where they do not take
// it, another type or depth above all. Rows of a projection are aligned as they must be.
const kernels::KernelTable* AttentionKernels(const at::Tensor& x_btd, int64_t heads, int64_t depth);

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

// What both passes of a layer's attention share; an autograd node keeps it beside the tensors.
struct KernelAttention : torch::CustomClassHolder {
  struct Tensors {
    at::Tensor q_rows, k_rows, v_rows, table;
  };
  AttentionResult Forward(const Tensors& given) const;
  AttentionRowGradients Backward(const Tensors& given, const AttentionResult& result, const at::Tensor& dout_rows,
                                 bool want_table) const;
  AttentionCall With(const Tensors& given) const;

  const kernels::KernelTable* functions = nullptr;
  AttentionCall call;  // without Tensors
};
using KernelAttentionPtr = c10::intrusive_ptr<KernelAttention>;

struct HeadSizes {
  int64_t heads = 1, depth = 1;
};
// The attention of x's rows where the kernels take it, otherwise null: then the layer makes scores and probabilities.
// Positions must come as a table, or not at all. Dropout draws once more from this thread's rows (row_random.h).
KernelAttentionPtr TakeKernels(const at::Tensor& x_btd, HeadSizes sizes, const Positions& positions,
                               const at::Tensor& mask_bk, double dropout);

}  // namespace allometry::trainer::ops::device
