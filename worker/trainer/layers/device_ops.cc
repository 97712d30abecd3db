#include "worker/trainer/layers/device_ops.h"

#include <ATen/ATen.h>

namespace allometry::trainer::ops::device {
namespace {

using kernels::Floats;
using kernels::KernelTable;
using kernels::Memory;
using kernels::Run;

at::Tensor NewFloats(at::IntArrayRef sizes, const at::Tensor& like) {
  return at::empty(sizes, like.options().dtype(at::kFloat));
}

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

at::Tensor GateForward(const KernelTable& table, Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc) {
  TORCH_CHECK(v_rc.stride(0) == u_rc.stride(0) && u_rc.stride(1) == 1 && v_rc.stride(1) == 1,
              "u and v differ in layout");
  const at::Tensor out = at::empty(u_rc.sizes(), u_rc.options());
  Run(table, table.gate_forward, u_rc,
      {.activation = act,
       .u = Memory(u_rc),
       .v = Memory(v_rc),
       .out = Memory(out),
       .rows = u_rc.size(0),
       .columns = u_rc.size(1),
       .stride = u_rc.stride(0)});
  return out;
}

void GateBackward(const KernelTable& table, Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc,
                  const at::Tensor& dout_rc, at::Tensor du_rc, at::Tensor dv_rc) {
  for (const at::Tensor& t : {v_rc, du_rc, dv_rc})
    TORCH_CHECK(t.stride(0) == u_rc.stride(0) && t.stride(1) == 1, "u, v and their gradients differ in layout");
  Run(table, table.gate_backward, u_rc,
      {.activation = act,
       .u = Memory(u_rc),
       .v = Memory(v_rc),
       .dout = Memory(dout_rc),
       .du = Memory(du_rc),
       .dv = Memory(dv_rc),
       .rows = u_rc.size(0),
       .columns = u_rc.size(1),
       .stride = u_rc.stride(0)});
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
