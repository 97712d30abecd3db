#include "worker/trainer/layers/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "worker/trainer/layers/device_attention.h"
#include "worker/trainer/layers/ops.h"
#include "worker/trainer/layers/position_bias.h"

namespace allometry::trainer {
namespace {

using ops::device::KernelAttention;
using ops::device::KernelAttentionPtr;
using ops::device::TakeKernels;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// [b, t, h e] rows to [b h, t, e], and back to rows [b t, h e].
at::Tensor ToHeads(const at::Tensor& rows, int64_t batch, int64_t heads) {
  const int64_t length = rows.size(0) / batch, depth = rows.size(1) / heads;
  if (heads == 1) return rows.view({batch, length, depth});
  return rows.view({batch, length, heads, depth}).transpose(1, 2).contiguous().view({batch * heads, length, depth});
}
at::Tensor ToRows(const at::Tensor& n_te, int64_t batch, int64_t heads) {
  const int64_t length = n_te.size(1), depth = n_te.size(2);
  if (heads == 1) return n_te.view({batch * length, depth});
  return n_te.view({batch, heads, length, depth}).transpose(1, 2).contiguous().view({batch * length, heads * depth});
}

// Products of one attention, in head layout.
struct Heads {
  at::Tensor q, k, v;  // [b h, ., e]
  at::Tensor p;        // probabilities [b h, q, k]
};

struct AttentionGradients {
  at::Tensor dq_rows, dk_rows, dv_rows;
  at::Tensor dpositions;  // of the bias, or of the table
};

AttentionGradients PlainBackward(const Heads& saved, const at::Tensor& dmixed, const at::Tensor& p_mask, int64_t batch,
                                 int64_t heads, bool want_bias) {
  at::Tensor dp = at::bmm(dmixed, saved.v.transpose(1, 2));
  const at::Tensor dv = at::bmm(Times(saved.p, p_mask).transpose(1, 2), dmixed);
  if (p_mask.defined()) dp.mul_(p_mask);
  AttentionGradients out;
  out.dpositions = ops::SoftmaxBackward(saved.p, dp, heads, want_bias);  // dp holds the scores' gradient from here on
  out.dq_rows = ToRows(at::bmm(dp, saved.k), batch, heads);
  out.dk_rows = ToRows(at::bmm(dp.transpose(1, 2), saved.q), batch, heads);
  out.dv_rows = ToRows(dv, batch, heads);
  return out;
}

// y = x + mask_y * attention(norm x, memory or norm x) W_o. Undefined memory means self-attention. With kernels
// `maybe_positions` is the table, there is no p_mask, and the kernels know the padding; without them it is the bias.
struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_btd, const MaybeTensor& maybe_memory_bsd,
                            const at::Tensor& norm, const at::Tensor& wq, const at::Tensor& wk, const at::Tensor& wv,
                            const at::Tensor& wo, const MaybeTensor& maybe_positions, const MaybeTensor& mask,
                            const MaybeTensor& maybe_p_mask, const MaybeTensor& maybe_y_mask, int64_t heads,
                            const KernelAttentionPtr& kernels) {
    const at::Tensor memory_bsd = TensorOf(maybe_memory_bsd), positions = TensorOf(maybe_positions),
                     p_mask = TensorOf(maybe_p_mask), y_mask = TensorOf(maybe_y_mask);
    const int64_t batch = x_btd.size(0);
    const at::Tensor x = Rows(x_btd);
    const ops::Normed normed = ops::NormForward(x, norm);
    const at::Tensor source = memory_bsd.defined() ? Rows(memory_bsd) : normed.y_rd;
    variable_list kept;  // q, k, v, and probabilities [b h, q, k] or the kernels' sums
    at::Tensor mixed;
    if (kernels) {
      kept = {at::mm(normed.y_rd, wq.t()), at::mm(source, wk.t()), at::mm(source, wv.t())};
      const auto result = kernels->Forward({kept[0], kept[1], kept[2], positions});
      mixed = result.out_rows;
      kept.push_back(result.lse_bhq);
    } else {
      Heads h{ToHeads(at::mm(normed.y_rd, wq.t()), batch, heads),
              ToHeads(at::mm(source, wk.t()), batch, heads),
              ToHeads(at::mm(source, wv.t()), batch, heads),
              {}};
      h.p = at::bmm(h.q, h.k.transpose(1, 2));
      ops::SoftmaxForward(h.p, positions, TensorOf(mask), heads);
      mixed = ToRows(at::bmm(Times(h.p, p_mask), h.v), batch, heads);
      kept = {h.q, h.k, h.v, h.p};
    }
    const at::Tensor y = y_mask.defined() ? at::addcmul(x, at::mm(mixed, wo.t()), y_mask) : at::addmm(x, mixed, wo.t());
    context->save_for_backward({x, normed.y_rd, normed.scale_r, norm, wq, wk, wv, wo, kept[0], kept[1], kept[2],
                                kept[3], mixed, memory_bsd.defined() ? source : at::Tensor(), p_mask, y_mask,
                                kernels ? positions : at::Tensor()});
    context->saved_data["heads"] = heads;
    context->saved_data["batch"] = batch;
    context->saved_data["positions"] = positions.defined() && positions.requires_grad();
    if (kernels) context->saved_data["kernels"] = c10::IValue::make_capsule(kernels);
    return y.view(x_btd.sizes());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list s = context->get_saved_variables();
    const at::Tensor &x = s[0], &normed = s[1], &scale = s[2], &norm = s[3], &wq = s[4], &wk = s[5], &wv = s[6],
                     &wo = s[7], &mixed = s[12], &memory = s[13], &y_mask = s[15];
    const int64_t batch = context->saved_data["batch"].toInt();
    const at::Tensor dy = Rows(gradients[0]), dout = Times(dy, y_mask);
    const at::Tensor dwo = at::mm(dout.t(), mixed);
    const AttentionGradients g = Backward(*context, s, at::mm(dout, wo));
    const at::Tensor& source = memory.defined() ? memory : normed;
    const at::Tensor dwq = at::mm(g.dq_rows.t(), normed), dwk = at::mm(g.dk_rows.t(), source),
                     dwv = at::mm(g.dv_rows.t(), source);
    at::Tensor dnormed = at::mm(g.dq_rows, wq), dmemory;
    at::Tensor& dsource = memory.defined() ? dmemory : dnormed;
    if (memory.defined())
      dmemory = at::mm(g.dk_rows, wk);
    else
      dnormed.addmm_(g.dk_rows, wk);
    dsource.addmm_(g.dv_rows, wv);
    const ops::NormGradients n = ops::NormBackward(dnormed, x, norm, scale, dy);
    if (dmemory.defined()) dmemory = dmemory.view({batch, -1, dmemory.size(1)});
    variable_list out{n.dx_rd.view(gradients[0].sizes()), dmemory, n.dweight_d, dwq, dwk, dwv, dwo, g.dpositions};
    out.resize(kInputs);
    return out;
  }

 private:
  static constexpr size_t kInputs = 13;

  static AttentionGradients Backward(AutogradContext& context, const variable_list& s, const at::Tensor& dmixed_rows) {
    const bool want_positions = context.saved_data["positions"].toBool();
    if (context.saved_data.count("kernels")) {
      const auto kernels =
          c10::static_intrusive_pointer_cast<KernelAttention>(context.saved_data["kernels"].toCapsule());
      const auto g = kernels->Backward({s[8], s[9], s[10], s[16]}, {s[12], s[11]}, dmixed_rows, want_positions);
      return {g.dq_rows, g.dk_rows, g.dv_rows, g.dtable};
    }
    const int64_t heads = context.saved_data["heads"].toInt(), batch = context.saved_data["batch"].toInt();
    return PlainBackward({s[8], s[9], s[10], s[11]}, ToHeads(dmixed_rows, batch, heads), s[14], batch, heads,
                         want_positions);
  }
};

}  // namespace

Attention::Attention(const arch::Shape& shape, bool with_table)
    : d_model_(shape.d_model), heads_(shape.heads), d_kv_(shape.d_kv) {
  const int64_t inner = heads_ * d_kv_;
  q_ = AddWeight(this, "q", {inner, d_model_});
  k_ = AddWeight(this, "k", {inner, d_model_});
  v_ = AddWeight(this, "v", {inner, d_model_});
  o_ = AddWeight(this, "o", {d_model_, inner});
  if (with_table) table_ = AddWeight(this, "relative_attention_bias", {kRelativeBuckets, heads_});
}

void Attention::Initialise(at::Generator generator) {
  const double d = static_cast<double>(d_model_), inner = static_cast<double>(heads_ * d_kv_);
  FillNormal(q(), std::pow(d * static_cast<double>(d_kv_), -0.5), generator);
  FillNormal(k(), std::pow(d, -0.5), generator);
  FillNormal(v(), std::pow(d, -0.5), generator);
  FillNormal(o(), std::pow(inner, -0.5), generator);
  if (table_) FillNormal(table(), std::pow(d, -0.5), generator);
}

AttentionSublayer::AttentionSublayer(const arch::Shape& shape, bool is_cross, bool with_table, double dropout)
    : dropout_(dropout), is_cross_(is_cross) {
  attention_ =
      register_module(is_cross ? "EncDecAttention" : "SelfAttention", std::make_shared<Attention>(shape, with_table));
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(shape.d_model));
}

at::Tensor AttentionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  const double p = is_training() ? dropout_ : 0;
  const at::Tensor memory = is_cross_ ? context.memory_bsd : at::Tensor();
  const int64_t batch = x_btd.size(0), queries = x_btd.size(1), keys = is_cross_ ? memory.size(1) : queries;
  const at::Tensor mask = is_cross_ ? context.memory_mask_bs : context.mask_bs;
  const Positions positions = is_cross_ ? Positions{} : context.positions;
  const KernelAttentionPtr by_kernels =
      TakeKernels(x_btd, {attention_->heads(), attention_->depth()}, positions, mask, p);
  const at::Tensor p_mask =
      by_kernels ? at::Tensor() : DropoutMask({batch * attention_->heads(), queries, keys}, x_btd.options(), p);
  const at::Tensor y_mask = DropoutMask({batch * queries, x_btd.size(2)}, x_btd.options(), p);
  return AttentionFunction::apply(x_btd, Maybe(memory), norm_->weight(), attention_->q(), attention_->k(),
                                  attention_->v(), attention_->o(),
                                  Maybe(by_kernels ? positions.table : BiasOf(positions, queries)), Maybe(mask),
                                  Maybe(p_mask), Maybe(y_mask), attention_->heads(), by_kernels);
}

at::Tensor AttentionSublayer::Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) {
  const int64_t batch = x_b1d.size(0), heads = attention_->heads();
  const at::Tensor x = Rows(x_b1d), normed = ops::NormForward(x, norm_->weight()).y_rd;
  const auto project = [&](const at::Tensor& rows, const at::Tensor& weight) {
    return ToHeads(at::mm(rows, weight.t()), batch, heads);
  };
  std::vector<at::Tensor>& kept = cache.tensors;  // keys and values [b h, k, e]
  if (is_cross_ && kept.empty()) {
    const at::Tensor memory = Rows(context.memory_bsd);
    kept = {project(memory, attention_->k()), project(memory, attention_->v())};
  } else if (!is_cross_) {
    const at::Tensor k = project(normed, attention_->k()), v = project(normed, attention_->v());
    kept = kept.empty() ? std::vector{k, v} : std::vector{at::cat({kept[0], k}, 1), at::cat({kept[1], v}, 1)};
  }
  at::Tensor p = at::bmm(project(normed, attention_->q()), kept[0].transpose(1, 2));
  ops::SoftmaxForward(p, is_cross_ ? at::Tensor() : context.positions.bias_hqk,
                      is_cross_ ? context.memory_mask_bs : at::Tensor(), heads);
  return at::addmm(x, ToRows(at::bmm(p, kept[1]), batch, heads), attention_->o().t()).view(x_b1d.sizes());
}

}  // namespace allometry::trainer
