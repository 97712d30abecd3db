#include "worker/trainer/layers/plain_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/trainer/layers/device_attention.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using ops::device::KernelAttention;
using ops::device::KernelAttentionPtr;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Softmax of scores [b h, q, k] + bias [h, q, k] + mask [b, k], summed in the sum type.
struct SoftmaxFunction : torch::autograd::Function<SoftmaxFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& scores_nqk, const MaybeTensor& bias_hqk,
                            const MaybeTensor& mask_bk, int64_t heads) {
    at::Tensor p = scores_nqk.clone();
    ops::SoftmaxForward(p, TensorOf(bias_hqk), TensorOf(mask_bk), heads);
    context->save_for_backward({p});
    context->saved_data["heads"] = heads;
    context->saved_data["bias"] = bias_hqk && bias_hqk->requires_grad();
    return p;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor p = context->get_saved_variables()[0];
    at::Tensor dscores = gradients[0].contiguous().clone();
    const at::Tensor dbias =
        ops::SoftmaxBackward(p, dscores, context->saved_data["heads"].toInt(), context->saved_data["bias"].toBool());
    return {dscores, dbias, at::Tensor(), at::Tensor()};
  }
};

// Mixed rows of projected ones by a GPU's kernels.
struct MixFunction : torch::autograd::Function<MixFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_rows, const at::Tensor& k_rows,
                            const at::Tensor& v_rows, const MaybeTensor& maybe_table,
                            const KernelAttentionPtr& kernels) {
    const at::Tensor table = TensorOf(maybe_table);
    const auto result = kernels->Forward({q_rows, k_rows, v_rows, table});
    context->save_for_backward({q_rows, k_rows, v_rows, table, result.out_rows, result.lse_bhq});
    context->saved_data["table"] = table.defined() && table.requires_grad();
    context->saved_data["kernels"] = c10::IValue::make_capsule(kernels);
    return result.out_rows;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list s = context->get_saved_variables();
    const auto kernels =
        c10::static_intrusive_pointer_cast<KernelAttention>(context->saved_data["kernels"].toCapsule());
    const auto g =
        kernels->Backward({s[0], s[1], s[2], s[3]}, {s[4], s[5]}, gradients[0], context->saved_data["table"].toBool());
    return {g.dq_rows, g.dk_rows, g.dv_rows, g.dtable, at::Tensor()};
  }
};

// [b, t, d] times the projection, in head layout [b h, t, e].
at::Tensor Project(const at::Tensor& x_btd, const at::Tensor& weight, int64_t heads) {
  const at::Tensor rows = at::linear(x_btd, weight);
  const int64_t batch = rows.size(0), length = rows.size(1), depth = rows.size(2) / heads;
  return rows.view({batch, length, heads, depth}).transpose(1, 2).reshape({batch * heads, length, depth});
}

// Mixed values of all heads through the output projection.
at::Tensor Output(const Attention& attention, const at::Tensor& mixed_nte) {
  const int64_t heads = attention.heads(), batch = mixed_nte.size(0) / heads, length = mixed_nte.size(1);
  const at::Tensor rows = mixed_nte.view({batch, heads, length, -1}).transpose(1, 2).reshape({batch, length, -1});
  return at::linear(rows, attention.o());
}

struct KeysAndValues {
  at::Tensor k, v;  // [b h, k, e]
};

KeysAndValues ProjectSource(const Attention& attention, const at::Tensor& source_bsd) {
  return {Project(source_bsd, attention.k(), attention.heads()), Project(source_bsd, attention.v(), attention.heads())};
}

at::Tensor Attend(const Attention& attention, const at::Tensor& h_btd, const KeysAndValues& source,
                  const at::Tensor& bias, const at::Tensor& mask, double dropout) {
  const at::Tensor q = Project(h_btd, attention.q(), attention.heads());
  const at::Tensor p =
      SoftmaxFunction::apply(at::bmm(q, source.k.transpose(1, 2)), Maybe(bias), Maybe(mask), attention.heads());
  return Output(attention, at::bmm(Drop(p, dropout, dropout > 0), source.v));
}

at::Tensor AttendOver(const Attention& attention, const at::Tensor& h_btd, const at::Tensor& source_bsd,
                      const Positions& positions, const at::Tensor& mask, double dropout) {
  const KernelAttentionPtr kernels =
      ops::device::TakeKernels(h_btd, {attention.heads(), attention.depth()}, positions, mask, dropout);
  if (!kernels)
    return Attend(attention, h_btd, ProjectSource(attention, source_bsd), BiasOf(positions, h_btd.size(1)), mask,
                  dropout);
  const auto project = [](const at::Tensor& x_btd, const at::Tensor& weight) {
    return Rows(at::linear(x_btd, weight));
  };
  const at::Tensor mixed = MixFunction::apply(project(h_btd, attention.q()), project(source_bsd, attention.k()),
                                              project(source_bsd, attention.v()), Maybe(positions.table), kernels);
  return at::linear(mixed, attention.o()).view({h_btd.size(0), h_btd.size(1), -1});
}

}  // namespace

at::Tensor SelfAttend(const Attention& attention, const at::Tensor& h_btd, const StackContext& context,
                      double dropout) {
  return AttendOver(attention, h_btd, h_btd, context.positions, context.mask_bs, dropout);
}

at::Tensor CrossAttend(const Attention& attention, const at::Tensor& h_btd, const StackContext& context,
                       double dropout) {
  return AttendOver(attention, h_btd, context.memory_bsd, {}, context.memory_mask_bs, dropout);
}

at::Tensor SelfAttendStep(const Attention& attention, const at::Tensor& h_b1d, const StackContext& context,
                          LayerCache& cache) {
  const KeysAndValues own = ProjectSource(attention, h_b1d);
  std::vector<at::Tensor>& kept = cache.tensors;
  kept = kept.empty() ? std::vector{own.k, own.v}
                      : std::vector{at::cat({kept[0], own.k}, 1), at::cat({kept[1], own.v}, 1)};
  return Attend(attention, h_b1d, {kept[0], kept[1]}, context.positions.bias_hqk, {}, 0);
}

at::Tensor CrossAttendStep(const Attention& attention, const at::Tensor& h_b1d, const StackContext& context,
                           LayerCache& cache) {
  if (cache.tensors.empty()) {
    const KeysAndValues memory = ProjectSource(attention, context.memory_bsd);
    cache.tensors = {memory.k, memory.v};
  }
  return Attend(attention, h_b1d, {cache.tensors[0], cache.tensors[1]}, {}, context.memory_mask_bs, 0);
}

}  // namespace allometry::trainer
