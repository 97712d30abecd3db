#pragma once

#include <ATen/core/Tensor.h>

#include "worker/trainer/layers/kernels.h"

// The arithmetic between the matrix products, forward and backward, without autograd: fused loops on a CPU, plain ATen
// elsewhere. Tensors are contiguous float32, bfloat16 or float64; "sum type" is float32, or float64 for float64.
// Thread-safe; an integer division of rows among LibTorch's threads makes results reproducible for a thread count.
namespace allometry::trainer::ops {

at::ScalarType SumType(at::ScalarType type);
// In its sum type.
inline at::Tensor Wide(const at::Tensor& t) { return t.to(SumType(t.scalar_type())); }
// Channels [b, t, c] as [b, t, k, c / k]: the kernels and the channels of each.
inline at::Tensor ByKernel(const at::Tensor& x_btc, int64_t kernels) {
  return x_btc.view({x_btc.size(0), x_btc.size(1), kernels, x_btc.size(2) / kernels});
}
// Whether a tensor takes the fused loops.
bool UsesCpuKernels(const at::Tensor& t);

// While it lives, this thread takes the ATen way on a CPU too: how the tests hold one against the other.
class ForceAten {
 public:
  ForceAten();
  ~ForceAten();
  ForceAten(const ForceAten&) = delete;
  ForceAten& operator=(const ForceAten&) = delete;

 private:
  bool before_;
};

// RMS norm with epsilon 1e-6 over the last dimension of x_rd [r, d].
struct Normed {
  at::Tensor y_rd;
  at::Tensor scale_r;  // 1 / rms, sum type
};
Normed NormForward(const at::Tensor& x_rd, const at::Tensor& weight_d);
struct NormGradients {
  at::Tensor dx_rd;  // residual added, if defined
  at::Tensor dweight_d;
};
NormGradients NormBackward(const at::Tensor& dy_rd, const at::Tensor& x_rd, const at::Tensor& weight_d,
                           const at::Tensor& scale_r, const at::Tensor& residual_rd);

// Softmax of scores [b h, q, k] + bias [h, q, k] + mask [b, k] in place; bias and mask are of the sum type or
// undefined.
void SoftmaxForward(at::Tensor& scores_nqk, const at::Tensor& bias_hqk, const at::Tensor& mask_bk, int64_t heads);
// Turns the probabilities' gradient into the scores', in place; the result is the bias's gradient [h, q, k], undefined
// unless wanted.
at::Tensor SoftmaxBackward(const at::Tensor& p_nqk, at::Tensor& dp_nqk, int64_t heads, bool want_bias);

// Turns logits [n, v] in place into the gradient of the summed negative log-likelihood, if `gradient`. Returns the
// likelihoods [n] in the sum type; rows whose target is 0 count nothing.
at::Tensor CrossEntropy(at::Tensor& logits_nv, const at::Tensor& targets_n, bool gradient);

// max(x, 0) * mask in place; an undefined mask means 1.
void ReluForward(at::Tensor& x, const at::Tensor& mask);
// Turns the gradient of ReluForward's result y into that of its x, in place.
void ReluBackward(at::Tensor& dy, const at::Tensor& y, const at::Tensor& mask);

// act(u) * v * mask. u and v are both contiguous, or the halves of one contiguous [r, 2 c] tensor (of which they are
// views); an undefined mask [r, c] means 1.
at::Tensor GateForward(Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc, const at::Tensor& mask_rc = {});
// Writes du and dv, which are laid out as u and v. With a mask, dout is overwritten.
void GateBackward(Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc, const at::Tensor& dout_rc,
                  at::Tensor du_rc, at::Tensor dv_rc, const at::Tensor& mask_rc = {});

// y[b][t][c] = sum_j kernel[j][c] x[b][t + first + j][c], zero outside; the kernel is of the sum type.
at::Tensor Convolve(const at::Tensor& x_btc, const at::Tensor& kernel_wc, int64_t first);
at::Tensor ConvolveInputGradient(const at::Tensor& dy_btc, const at::Tensor& kernel_wc, int64_t first);
at::Tensor ConvolveKernelGradient(const at::Tensor& x_btc, const at::Tensor& dy_btc, int64_t width, int64_t first);

// The same with a kernel for every position: the softmax over j of logits[b][t][j][k]. k divides the channels; kernel i
// is that of the i-th c / k of them.
at::Tensor DynamicConvolve(const at::Tensor& x_btc, const at::Tensor& logits_btwk, int64_t first);
struct DynamicConvolutionGradients {
  at::Tensor dx_btc, dlogits_btwk;
};
// y is DynamicConvolve's result; first is at most 0.
DynamicConvolutionGradients DynamicConvolveBackward(const at::Tensor& x_btc, const at::Tensor& logits_btwk,
                                                    const at::Tensor& y_btc, const at::Tensor& dy_btc, int64_t first);

}  // namespace allometry::trainer::ops
