#include "worker/trainer/layers/device_ops.h"

#include <ATen/ATen.h>

#include <vector>

namespace allometry::trainer::ops::device {
namespace {

using kernels::Floats;
using kernels::KernelTable;
using kernels::Memory;
using kernels::Run;

at::Tensor NewFloats(at::IntArrayRef sizes, const at::Tensor& like) {
  return at::empty(sizes, like.options().dtype(at::kFloat));
}

// Of a GRU's gates [r, 2 d], whose first half is the update's.
at::Tensor ResetOf(const at::Tensor& gates_rc) { return gates_rc.slice(1, gates_rc.size(1) / 2); }

}  // namespace

Normed NormForward(const KernelTable& table, const at::Tensor& x_rd, const at::Tensor& weight_d) {
  const Normed out{at::empty_like(x_rd), NewFloats({x_rd.size(0)}, x_rd)};
  Run(table, table.norm_forward, x_rd,
      {.x = Memory(x_rd),
       .weight = Memory(weight_d),
       .y = Memory(out.y_rd),
       .scale = Floats(out.scale_r),
       .rows = x_rd.size(0),
       .d = x_rd.size(1)});
  return out;
}

NormGradients NormBackward(const KernelTable& table, const at::Tensor& dy_rd, const at::Tensor& x_rd,
                           const at::Tensor& weight_d, const at::Tensor& scale_r, const at::Tensor& residual_rd) {
  const int64_t rows = x_rd.size(0), d = x_rd.size(1);
  TORCH_CHECK(d <= kernels::kLargestNormWidth, "rows of ", d, " values are wider than the norm's gradient takes");
  const NormGradients out{at::empty_like(x_rd), at::empty_like(weight_d)};
  const at::Tensor workspace = NewFloats({kernels::NormWorkspace(rows, d)}, x_rd);
  Run(table, table.norm_backward, x_rd,
      {.dy = Memory(dy_rd),
       .x = Memory(x_rd),
       .weight = Memory(weight_d),
       .scale = Floats(scale_r),
       .residual = Memory(residual_rd),
       .dx = Memory(out.dx_rd),
       .dweight = Memory(out.dweight_d),
       .workspace = Floats(workspace),
       .rows = rows,
       .d = d});
  return out;
}

void SoftmaxForward(const KernelTable& table, at::Tensor& scores_nqk, const at::Tensor& bias_hqk,
                    const at::Tensor& mask_bk, int64_t heads) {
  Run(table, table.softmax_forward, scores_nqk,
      {.scores = Memory(scores_nqk),
       .bias = Floats(bias_hqk),
       .mask = Floats(mask_bk),
       .batch = scores_nqk.size(0) / heads,
       .heads = heads,
       .q = scores_nqk.size(1),
       .k = scores_nqk.size(2)});
}

at::Tensor SoftmaxBackward(const KernelTable& table, const at::Tensor& p_nqk, at::Tensor& dp_nqk, int64_t heads,
                           bool want_bias) {
  const int64_t q = p_nqk.size(1), k = p_nqk.size(2);
  at::Tensor dbias;
  if (want_bias) dbias = NewFloats({heads, q, k}, p_nqk);
  Run(table, table.softmax_backward, p_nqk,
      {.p = Memory(p_nqk),
       .dp = Memory(dp_nqk),
       .dbias = Floats(dbias),
       .batch = p_nqk.size(0) / heads,
       .heads = heads,
       .q = q,
       .k = k});
  return dbias;
}

at::Tensor CrossEntropy(const KernelTable& table, at::Tensor& logits_nv, const at::Tensor& targets_n, bool gradient) {
  const at::Tensor nll = NewFloats({logits_nv.size(0)}, logits_nv);
  Run(table, table.cross_entropy, logits_nv,
      {.logits = Memory(logits_nv),
       .targets = targets_n.const_data_ptr<int64_t>(),
       .nll = Floats(nll),
       .n = logits_nv.size(0),
       .v = logits_nv.size(1),
       .gradient = gradient});
  return nll;
}

RowLosses CrossEntropyWithZLoss(const KernelTable& table, at::Tensor& logits_nv, const at::Tensor& targets_n,
                                double z) {
  const RowLosses out{NewFloats({logits_nv.size(0)}, logits_nv), NewFloats({logits_nv.size(0)}, logits_nv)};
  Run(table, table.cross_entropy, logits_nv,
      {.logits = Memory(logits_nv),
       .targets = targets_n.const_data_ptr<int64_t>(),
       .nll = Floats(out.nll_n),
       .z_loss = Floats(out.z_loss_n),
       .n = logits_nv.size(0),
       .v = logits_nv.size(1),
       .z = static_cast<float>(z),
       .gradient = true});
  return out;
}

RowLosses MixtureCrossEntropy(const KernelTable& table, const at::Tensor& logits_rv, const at::Tensor& log_prior_nk,
                              const at::Tensor& targets_n, double z, const at::Tensor& dlog_prior_nk) {
  const int64_t n = log_prior_nk.size(0);
  const RowLosses out{NewFloats({n}, logits_rv), NewFloats({n}, logits_rv)};
  Run(table, table.mixture, logits_rv,
      {.logits = Memory(logits_rv),
       .log_prior = Floats(log_prior_nk),
       .targets = targets_n.const_data_ptr<int64_t>(),
       .nll = Floats(out.nll_n),
       .z_loss = Floats(out.z_loss_n),
       .dlog_prior = Floats(dlog_prior_nk),
       .n = n,
       .k = log_prior_nk.size(1),
       .v = logits_rv.size(1),
       .z = static_cast<float>(z),
       .gradient = true});
  return out;
}

void ReluForward(const KernelTable& table, at::Tensor& x, const at::Tensor& mask) {
  Run(table, table.relu_forward, x, {.x = Memory(x), .mask = Memory(mask), .y = Memory(x), .n = x.numel()});
}

void ReluBackward(const KernelTable& table, at::Tensor& dy, const at::Tensor& y, const at::Tensor& mask) {
  Run(table, table.relu_backward, dy,
      {.dy = Memory(dy), .y = Memory(y), .mask = Memory(mask), .dx = Memory(dy), .n = dy.numel()});
}

at::Tensor GateForward(const KernelTable& table, Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc,
                       const at::Tensor& mask_rc) {
  TORCH_CHECK(v_rc.stride(0) == u_rc.stride(0) && u_rc.stride(1) == 1 && v_rc.stride(1) == 1,
              "u and v differ in layout");
  const at::Tensor out = at::empty(u_rc.sizes(), u_rc.options());
  Run(table, table.gate_forward, u_rc,
      {.activation = act,
       .u = Memory(u_rc),
       .v = Memory(v_rc),
       .mask = Memory(mask_rc),
       .out = Memory(out),
       .rows = u_rc.size(0),
       .columns = u_rc.size(1),
       .stride = u_rc.stride(0)});
  return out;
}

void GateBackward(const KernelTable& table, Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc,
                  const at::Tensor& dout_rc, at::Tensor du_rc, at::Tensor dv_rc, const at::Tensor& mask_rc) {
  for (const at::Tensor& t : {v_rc, du_rc, dv_rc})
    TORCH_CHECK(t.stride(0) == u_rc.stride(0) && t.stride(1) == 1, "u, v and their gradients differ in layout");
  Run(table, table.gate_backward, u_rc,
      {.activation = act,
       .u = Memory(u_rc),
       .v = Memory(v_rc),
       .mask = Memory(mask_rc),
       .dout = Memory(dout_rc),
       .du = Memory(du_rc),
       .dv = Memory(dv_rc),
       .rows = u_rc.size(0),
       .columns = u_rc.size(1),
       .stride = u_rc.stride(0)});
}

at::Tensor GruReset(const KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc) {
  const at::Tensor y = at::empty_like(x_rd);
  Run(table, table.gru_reset_forward, x_rd,
      {.x = Memory(x_rd),
       .reset = Memory(ResetOf(gates_rc)),
       .y = Memory(y),
       .rows = x_rd.size(0),
       .d = x_rd.size(1),
       .stride = gates_rc.stride(0)});
  return y;
}

at::Tensor GruMix(const KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc,
                  const at::Tensor& candidate_rd) {
  const at::Tensor y = at::empty_like(x_rd);
  Run(table, table.gru_mix_forward, x_rd,
      {.x = Memory(x_rd),
       .update = Memory(gates_rc),
       .candidate = Memory(candidate_rd),
       .y = Memory(y),
       .rows = x_rd.size(0),
       .d = x_rd.size(1),
       .stride = gates_rc.stride(0)});
  return y;
}

GruMixGradients GruMixBackward(const KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc,
                               const at::Tensor& candidate_rd, const at::Tensor& dy_rd, const at::Tensor& dgates_rc) {
  const GruMixGradients out{at::empty_like(x_rd), at::empty_like(candidate_rd)};
  Run(table, table.gru_mix_backward, x_rd,
      {.x = Memory(x_rd),
       .update = Memory(gates_rc),
       .candidate = Memory(candidate_rd),
       .dy = Memory(dy_rd),
       .dx = Memory(out.dx_rd),
       .dupdate = Memory(dgates_rc),
       .dcandidate = Memory(out.dcandidate_rd),
       .rows = x_rd.size(0),
       .d = x_rd.size(1),
       .stride = gates_rc.stride(0)});
  return out;
}

void GruResetBackward(const KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc,
                      const at::Tensor& dy_rd, const at::Tensor& dx_rd, const at::Tensor& dgates_rc) {
  Run(table, table.gru_reset_backward, x_rd,
      {.x = Memory(x_rd),
       .reset = Memory(ResetOf(gates_rc)),
       .dy = Memory(dy_rd),
       .dx_before = Memory(dx_rd),
       .dx = Memory(dx_rd),
       .dreset = Memory(ResetOf(dgates_rc)),
       .rows = x_rd.size(0),
       .d = x_rd.size(1),
       .stride = gates_rc.stride(0)});
}

Routes Route(const KernelTable& table, const at::Tensor& expert_bt, const at::Tensor& token_bt, int64_t experts,
             int64_t capacity, int64_t width) {
  const int64_t batch = expert_bt.size(0), length = expert_bt.size(1);
  const auto integers = expert_bt.options();
  const Routes out{at::empty({batch * length}, integers), at::empty({experts * batch * width}, integers),
                   at::empty({batch, experts}, integers)};
  kernels::OnStreamOf(table, expert_bt, [&](kernels::Stream stream) {
    table.route(stream, {.expert = expert_bt.const_data_ptr<int64_t>(),
                         .token = static_cast<const uint8_t*>(Memory(token_bt)),
                         .slot_of_token = out.slot_of_token.data_ptr<int64_t>(),
                         .token_of_slot = out.token_of_slot.data_ptr<int64_t>(),
                         .sent = out.sent_be.data_ptr<int64_t>(),
                         .batch = batch,
                         .length = length,
                         .experts = experts,
                         .capacity = capacity,
                         .width = width});
  });
  return out;
}

at::Tensor GatherRows(const KernelTable& table, const at::Tensor& x_rd, const at::Tensor& index, const RowScale& scale,
                      const at::Tensor& before_rd) {
  const at::Tensor out = at::empty({index.size(0), x_rd.size(1)}, x_rd.options());
  Run(table, table.gather_rows, x_rd,
      {.x = Memory(x_rd),
       .index = index.const_data_ptr<int64_t>(),
       .by_destination = Floats(scale.by_destination),
       .by_source = Floats(scale.by_source),
       .before = Memory(before_rd),
       .out = Memory(out),
       .rows = index.size(0),
       .d = x_rd.size(1)});
  return out;
}

at::Tensor RowDots(const KernelTable& table, const at::Tensor& a_rd, const at::Tensor& b_rd, const at::Tensor& index) {
  const at::Tensor dots = NewFloats({index.size(0)}, a_rd);
  Run(table, table.row_dots, a_rd,
      {.a = Memory(a_rd),
       .b = Memory(b_rd),
       .index = index.const_data_ptr<int64_t>(),
       .dots = Floats(dots),
       .rows = index.size(0),
       .d = a_rd.size(1)});
  return dots;
}

at::Tensor Features(const KernelTable& table, kernels::FeatureSide side, const at::Tensor& projections,
                    const at::Tensor& x) {
  const at::Tensor features = at::empty_like(projections);
  const int64_t m = projections.size(-1);
  Run(table, table.features_forward, projections,
      {.side = side,
       .projections = Memory(projections),
       .x = Memory(x),
       .features = Memory(features),
       .rows = projections.numel() / m,
       .m = m,
       .e = x.defined() ? x.size(-1) : 0});
  return features;
}

FeatureGradients FeaturesBackward(const KernelTable& table, kernels::FeatureSide side, const at::Tensor& projections,
                                  const at::Tensor& x, const at::Tensor& dfeatures) {
  FeatureGradients out{at::empty_like(projections), {}};
  if (x.defined()) out.dx = at::empty_like(x);
  const int64_t m = projections.size(-1);
  Run(table, table.features_backward, projections,
      {.side = side,
       .projections = Memory(projections),
       .x = Memory(x),
       .dfeatures = Memory(dfeatures),
       .dprojections = Memory(out.dprojections),
       .dx_square = Memory(out.dx),
       .rows = projections.numel() / m,
       .m = m,
       .e = x.defined() ? x.size(-1) : 0});
  return out;
}

at::Tensor CarriedSums(const KernelTable& table, const at::Tensor& sums, bool backward) {
  const at::Tensor out = at::empty_like(sums);
  const int64_t n = sums.size(0), chunks = sums.size(1);
  Run(table, table.carried_sums, sums,
      {.x = Memory(sums),
       .out = Memory(out),
       .n = n,
       .chunks = chunks,
       .size = sums.numel() / (n * chunks),
       .backward = backward});
  return out;
}

at::Tensor Quotient(const KernelTable& table, const at::Tensor& sums) {
  std::vector<int64_t> sizes = sums.sizes().vec();
  const int64_t d = --sizes.back();
  const at::Tensor y = at::empty(sizes, sums.options());
  Run(table, table.quotient_forward, sums,
      {.sums = Memory(sums), .y = Memory(y), .rows = sums.numel() / (d + 1), .d = d});
  return y;
}

at::Tensor QuotientBackward(const KernelTable& table, const at::Tensor& sums, const at::Tensor& dy) {
  const at::Tensor dsums = at::empty_like(sums);
  const int64_t d = dy.size(-1);
  Run(table, table.quotient_backward, sums,
      {.sums = Memory(sums), .dy = Memory(dy), .dsums = Memory(dsums), .rows = sums.numel() / (d + 1), .d = d});
  return dsums;
}

at::Tensor Convolve(const KernelTable& table, const at::Tensor& x_btc, const at::Tensor& kernel_wc, int64_t first,
                    bool reversed) {
  const at::Tensor y = at::empty_like(x_btc);
  Run(table, table.convolve, x_btc,
      {.x = Memory(x_btc),
       .kernel = Floats(kernel_wc),
       .y = Memory(y),
       .batch = x_btc.size(0),
       .length = x_btc.size(1),
       .channels = x_btc.size(2),
       .width = kernel_wc.size(0),
       .first = first,
       .reversed = reversed});
  return y;
}

at::Tensor ConvolveKernelGradient(const KernelTable& table, const at::Tensor& x_btc, const at::Tensor& dy_btc,
                                  int64_t width, int64_t first) {
  const int64_t batch = x_btc.size(0), length = x_btc.size(1), channels = x_btc.size(2);
  const at::Tensor dkernel = NewFloats({width, channels}, x_btc),
                   workspace = NewFloats({kernels::ConvolveWorkspace(batch, length, channels, width)}, x_btc);
  Run(table, table.convolve_kernel_gradient, x_btc,
      {.x = Memory(x_btc),
       .dy = Memory(dy_btc),
       .dkernel = Floats(dkernel),
       .workspace = Floats(workspace),
       .batch = batch,
       .length = length,
       .channels = channels,
       .width = width,
       .first = first});
  return dkernel;
}

at::Tensor DynamicConvolve(const KernelTable& table, const at::Tensor& x_btc, const at::Tensor& logits_btwk,
                           int64_t first) {
  const at::Tensor y = at::empty_like(x_btc);
  Run(table, table.dynamic_convolve, x_btc,
      {.x = Memory(x_btc),
       .logits = Memory(logits_btwk),
       .y = Memory(y),
       .batch = x_btc.size(0),
       .length = x_btc.size(1),
       .channels = x_btc.size(2),
       .width = logits_btwk.size(2),
       .kernels = logits_btwk.size(3),
       .first = first});
  return y;
}

DynamicConvolutionGradients DynamicConvolveBackward(const KernelTable& table, const at::Tensor& x_btc,
                                                    const at::Tensor& logits_btwk, const at::Tensor& y_btc,
                                                    const at::Tensor& dy_btc, int64_t first) {
  const int64_t batch = x_btc.size(0), length = x_btc.size(1), kernel_count = logits_btwk.size(3);
  const DynamicConvolutionGradients out{at::empty_like(x_btc), at::empty_like(logits_btwk)};
  const at::Tensor workspace = NewFloats({batch, length, kernel_count}, x_btc);
  Run(table, table.dynamic_convolve_backward, x_btc,
      {.x = Memory(x_btc),
       .logits = Memory(logits_btwk),
       .y = Memory(y_btc),
       .dy = Memory(dy_btc),
       .dx = Memory(out.dx_btc),
       .dlogits = Memory(out.dlogits_btwk),
       .workspace = Floats(workspace),
       .batch = batch,
       .length = length,
       .channels = x_btc.size(2),
       .width = logits_btwk.size(2),
       .kernels = kernel_count,
       .first = first});
  return out;
}

}  // namespace allometry::trainer::ops::device
