#include "worker/trainer/layers/plain_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

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

}  // namespace

at::Tensor SelfAttend(const Attention& attention, const at::Tensor& h_btd, const StackContext& context,
                      double dropout) {
  return Attend(attention, h_btd, ProjectSource(attention, h_btd), context.bias_hqk, context.mask_bs, dropout);
}

at::Tensor CrossAttend(const Attention& attention, const at::Tensor& h_btd, const StackContext& context,
                       double dropout) {
  return Attend(attention, h_btd, ProjectSource(attention, context.memory_bsd), {}, context.memory_mask_bs, dropout);
}

at::Tensor SelfAttendStep(const Attention& attention, const at::Tensor& h_b1d, const StackContext& context,
                          LayerCache& cache) {
  const KeysAndValues own = ProjectSource(attention, h_b1d);
  std::vector<at::Tensor>& kept = cache.tensors;
  kept = kept.empty() ? std::vector{own.k, own.v}
                      : std::vector{at::cat({kept[0], own.k}, 1), at::cat({kept[1], own.v}, 1)};
  return Attend(attention, h_b1d, {kept[0], kept[1]}, context.bias_hqk, {}, 0);
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
