#pragma once

#include "worker/trainer/kernels/tensor_kernels.h"
#include "worker/trainer/layers/ops.h"

// The arithmetic of ops.h by the kernels for GPUs. Float32 and bfloat16 only; everything else is ATen's.
namespace allometry::trainer::ops::device {

Normed NormForward(const kernels::KernelTable& table, const at::Tensor& x_rd, const at::Tensor& weight_d);
NormGradients NormBackward(const kernels::KernelTable& table, const at::Tensor& dy_rd, const at::Tensor& x_rd,
                           const at::Tensor& weight_d, const at::Tensor& scale_r, const at::Tensor& residual_rd);

void SoftmaxForward(const kernels::KernelTable& table, at::Tensor& scores_nqk, const at::Tensor& bias_hqk,
                    const at::Tensor& mask_bk, int64_t heads);
at::Tensor SoftmaxBackward(const kernels::KernelTable& table, const at::Tensor& p_nqk, at::Tensor& dp_nqk,
                           int64_t heads, bool want_bias);

at::Tensor CrossEntropy(const kernels::KernelTable& table, at::Tensor& logits_nv, const at::Tensor& targets_n,
                        bool gradient);
// The likelihoods and z (log Z)^2 of each row; the logits become the gradient of the sum of both.
struct RowLosses {
  at::Tensor nll_n, z_loss_n;
};
RowLosses CrossEntropyWithZLoss(const kernels::KernelTable& table, at::Tensor& logits_nv, const at::Tensor& targets_n,
                                double z);

at::Tensor GateForward(const kernels::KernelTable& table, Activation act, const at::Tensor& u_rc,
                       const at::Tensor& v_rc);
void GateBackward(const kernels::KernelTable& table, Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc,
                  const at::Tensor& dout_rc, at::Tensor du_rc, at::Tensor dv_rc);

at::Tensor Convolve(const kernels::KernelTable& table, const at::Tensor& x_btc, const at::Tensor& kernel_wc,
                    int64_t first, bool reversed);
at::Tensor ConvolveKernelGradient(const kernels::KernelTable& table, const at::Tensor& x_btc, const at::Tensor& dy_btc,
                                  int64_t width, int64_t first);
at::Tensor DynamicConvolve(const kernels::KernelTable& table, const at::Tensor& x_btc, const at::Tensor& logits_btwk,
                           int64_t first);
DynamicConvolutionGradients DynamicConvolveBackward(const kernels::KernelTable& table, const at::Tensor& x_btc,
                                                    const at::Tensor& logits_btwk, const at::Tensor& y_btc,
                                                    const at::Tensor& dy_btc, int64_t first);

}  // namespace allometry::trainer::ops::device
