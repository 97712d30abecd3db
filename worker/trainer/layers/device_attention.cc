#include "worker/trainer/layers/device_attention.h"

#include <ATen/ATen.h>

#include "worker/trainer/layers/device_ops.h"
#include "worker/trainer/layers/row_random.h"

namespace allometry::trainer::ops::device {
namespace {

using kernels::AttentionInputs;
using kernels::Floats;
using kernels::HeadRows;
using kernels::Memory;

// Rows [b t, h e] as [b, h, t, e].
template <typename T>
HeadRows<T> HeadsOf(const at::Tensor& rows, const AttentionCall& call) {
  const int64_t length = rows.size(0) / call.batch, depth = rows.size(1) / call.heads;
  return {static_cast<T*>(rows.data_ptr()), {length * rows.stride(0), depth, rows.stride(0)}};
}

AttentionInputs InputsOf(const AttentionCall& call) {
  AttentionInputs in;
  in.shape = {.batch = static_cast<int>(call.batch),
              .heads = static_cast<int>(call.heads),
              .queries = static_cast<int>(call.q_rows.size(0) / call.batch),
              .keys = static_cast<int>(call.k_rows.size(0) / call.batch),
              .depth = static_cast<int>(call.q_rows.size(1) / call.heads),
              .causal = call.causal};
  in.q = HeadsOf<const Bf16>(call.q_rows, call);
  in.k = HeadsOf<const Bf16>(call.k_rows, call);
  in.v = HeadsOf<const Bf16>(call.v_rows, call);
  in.table = Memory(call.table);
  if (call.table.defined()) in.table_type = kernels::TypeOf(call.table);
  in.mask = Floats(call.mask_bk);
  if (call.dropout > 0)
    in.dropout = {.seed = static_cast<const uint64_t*>(call.seed.data_ptr()),
                  .layer = static_cast<uint64_t>(call.layer),
                  .first_example = call.first_example,
                  .rate = kernels::DropoutRate(call.dropout)};
  return in;
}

}  // namespace

const kernels::KernelTable* AttentionKernels(const at::Tensor& x_btd, int64_t heads, int64_t depth) {
  if (x_btd.scalar_type() != at::kBFloat16) return nullptr;
  const kernels::AttentionShape shape{.batch = static_cast<int>(x_btd.size(0)),
                                      .heads = static_cast<int>(heads),
                                      .queries = static_cast<int>(x_btd.size(1)),
                                      .keys = 1,
                                      .depth = static_cast<int>(depth)};
  return kernels::AttentionShapeRefusal(shape) == nullptr ? KernelsOf(x_btd) : nullptr;
}

bool TakesAttention(const AttentionCall& call) {
  for (const at::Tensor& rows : {call.q_rows, call.k_rows, call.v_rows})
    if (rows.scalar_type() != at::kBFloat16 || rows.stride(1) != 1) return false;
  if (call.table.defined() && !call.table.is_contiguous()) return false;
  if (call.mask_bk.defined() && !call.mask_bk.is_contiguous()) return false;
  return kernels::AttentionRefusal(InputsOf(call)) == nullptr;
}

AttentionResult AttentionForward(const kernels::KernelTable& table, const AttentionCall& call) {
  TORCH_CHECK(TakesAttention(call), "attention of ", call.q_rows.sizes(), " ", call.q_rows.scalar_type(),
              " rows is not for the kernels: ask TakesAttention first");
  const int64_t queries = call.q_rows.size(0) / call.batch;
  const AttentionResult result{at::empty(call.q_rows.sizes(), call.q_rows.options()),
                               at::empty({call.batch, call.heads, queries}, call.q_rows.options().dtype(at::kFloat))};
  kernels::OnStreamOf(table, call.q_rows, [&](kernels::Stream stream) {
    table.attention_forward(
        stream, {.in = InputsOf(call), .out = HeadsOf<Bf16>(result.out_rows, call), .lse = Floats(result.lse_bhq)});
  });
  return result;
}

AttentionRowGradients AttentionBackward(const kernels::KernelTable& table, const AttentionCall& call,
                                        const AttentionResult& result, const at::Tensor& dout_rows, bool want_table) {
  const AttentionInputs in = InputsOf(call);
  const auto like = [](const at::Tensor& rows) { return at::empty(rows.sizes(), rows.options()); };
  AttentionRowGradients out{like(call.q_rows), like(call.k_rows), like(call.v_rows), {}};
  const auto floats = call.q_rows.options().dtype(at::kFloat);
  if (want_table) out.dtable = at::empty({kernels::kAttentionBuckets, call.heads}, floats);
  const auto bytes = static_cast<int64_t>(kernels::AttentionWorkspaceBytes(in.shape));
  const at::Tensor workspace = at::empty({bytes / 4}, floats), dout = dout_rows.contiguous();
  kernels::OnStreamOf(table, call.q_rows, [&](kernels::Stream stream) {
    table.attention_backward(stream, {.in = in,
                                      .out = HeadsOf<const Bf16>(result.out_rows, call),
                                      .dout = HeadsOf<const Bf16>(dout, call),
                                      .lse = Floats(result.lse_bhq),
                                      .dq = HeadsOf<Bf16>(out.dq_rows, call),
                                      .dk = HeadsOf<Bf16>(out.dk_rows, call),
                                      .dv = HeadsOf<Bf16>(out.dv_rows, call),
                                      .dtable = Floats(out.dtable),
                                      .workspace = Memory(workspace)});
  });
  return out;
}

AttentionCall KernelAttention::With(const Tensors& given) const {
  AttentionCall whole = call;
  whole.q_rows = given.q_rows;
  whole.k_rows = given.k_rows;
  whole.v_rows = given.v_rows;
  whole.table = given.table;
  return whole;
}

AttentionResult KernelAttention::Forward(const Tensors& given) const {
  return AttentionForward(*functions, With(given));
}

AttentionRowGradients KernelAttention::Backward(const Tensors& given, const AttentionResult& result,
                                                const at::Tensor& dout_rows, bool want_table) const {
  return AttentionBackward(*functions, With(given), result, dout_rows, want_table);
}

KernelAttentionPtr TakeKernels(const at::Tensor& x_btd, HeadSizes sizes, const Positions& positions,
                               const at::Tensor& mask_bk, double dropout) {
  const kernels::KernelTable* table = AttentionKernels(x_btd, sizes.heads, sizes.depth);
  if (!table || positions.bias_hqk.defined()) return {};
  auto out = c10::make_intrusive<KernelAttention>();
  out->functions = table;
  out->call = {.batch = x_btd.size(0), .heads = sizes.heads, .causal = positions.causal, .dropout = dropout};
  if (mask_bk.defined()) out->call.mask_bk = mask_bk.contiguous();
  if (dropout == 0) return out;
  const RowDraw draw = NextRowDraw(x_btd.size(0));
  out->call.seed = draw.device_key.defined() ? draw.device_key
                                             : at::full({1}, static_cast<int64_t>(draw.key),
                                                        x_btd.options().dtype(at::kLong).requires_grad(false));
  out->call.layer = static_cast<int64_t>(draw.number);
  out->call.first_example = draw.first;
  return out;
}

}  // namespace allometry::trainer::ops::device
