#pragma once

#include "worker/trainer/kernels/tensor_kernels.h"
#include "worker/trainer/layers/ops.h"

// The arithmetic of ops.h by the kernels for GPUs. Float32 and bfloat16 only; everything else is ATen's.
namespace allometry::trainer::ops::device {

// The kernels that the layers take for a tensor, or null: see KernelsFor; ForceAten counts too.
const kernels::KernelTable* KernelsOf(const at::Tensor& t);

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

void ReluForward(const kernels::KernelTable& table, at::Tensor& x, const at::Tensor& mask);
void ReluBackward(const kernels::KernelTable& table, at::Tensor& dy, const at::Tensor& y, const at::Tensor& mask);
// The same of n mixtures of k softmaxes, whose logits are [n k, v]: they become the gradient of the tokens' losses, as
// does dlog_prior. At most kernels::kMostSoftmaxes softmaxes.
RowLosses MixtureCrossEntropy(const kernels::KernelTable& table, const at::Tensor& logits_rv,
                              const at::Tensor& log_prior_nk, const at::Tensor& targets_n, double z,
                              const at::Tensor& dlog_prior_nk);

at::Tensor GateForward(const kernels::KernelTable& table, Activation act, const at::Tensor& u_rc,
                       const at::Tensor& v_rc, const at::Tensor& mask_rc);
void GateBackward(const kernels::KernelTable& table, Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc,
                  const at::Tensor& dout_rc, at::Tensor du_rc, at::Tensor dv_rc, const at::Tensor& mask_rc);

// A GRU's two gates (kernels/gates.h) from gates [r, 2 d], the products of update and reset side by side: reset gives
// sigmoid(reset) x, mix x + sigmoid(update) (tanh(candidate) - x).
at::Tensor GruReset(const kernels::KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc);
at::Tensor GruMix(const kernels::KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc,
                  const at::Tensor& candidate_rd);
struct GruMixGradients {
  at::Tensor dx_rd, dcandidate_rd;
};
// Fills in the update's half of dgates.
GruMixGradients GruMixBackward(const kernels::KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc,
                               const at::Tensor& candidate_rd, const at::Tensor& dy_rd, const at::Tensor& dgates_rc);
// Adds to dx, and fills in the reset's half of dgates.
void GruResetBackward(const kernels::KernelTable& table, const at::Tensor& x_rd, const at::Tensor& gates_rc,
                      const at::Tensor& dy_rd, const at::Tensor& dx_rd, const at::Tensor& dgates_rc);

// Tokens to experts at a fixed capacity (kernels/experts.h): expert [b, t] int64 and token [b, t] bool to slots of
// `width` for each expert and sequence. At most kernels::kMostExperts experts.
struct Routes {
  at::Tensor slot_of_token;  // int64 [b t], -1 without one
  at::Tensor token_of_slot;  // int64 [experts b width], -1 where it is empty
  at::Tensor sent_be;        // int64: tokens that each expert was sent, served or not
};
Routes Route(const kernels::KernelTable& table, const at::Tensor& expert_bt, const at::Tensor& token_bt,
             int64_t experts, int64_t capacity, int64_t width);
// before[i] + scale x[index[i]], and before[i] alone where index[i] is -1. The scale, float32, is that of the row that
// is written or of the one that is read; without either it is 1, without `before` that is 0.
struct RowScale {
  at::Tensor by_destination, by_source;
};
at::Tensor GatherRows(const kernels::KernelTable& table, const at::Tensor& x_rd, const at::Tensor& index,
                      const RowScale& scale, const at::Tensor& before_rd);
// sum_c a[i][c] b[index[i]][c], float32, 0 where index[i] is -1.
at::Tensor RowDots(const kernels::KernelTable& table, const at::Tensor& a_rd, const at::Tensor& b_rd,
                   const at::Tensor& index);

// FAVOR+ between its products (kernels/linear_attention.h): features of projections [.., m], for keys with the vectors
// x [.., e] that were projected.
at::Tensor Features(const kernels::KernelTable& table, kernels::FeatureSide side, const at::Tensor& projections,
                    const at::Tensor& x);
struct FeatureGradients {
  at::Tensor dprojections;
  at::Tensor dx;  // keys only: what goes by |x|^2, not through the projections
};
FeatureGradients FeaturesBackward(const kernels::KernelTable& table, kernels::FeatureSide side,
                                  const at::Tensor& projections, const at::Tensor& x, const at::Tensor& dfeatures);
// Sums [n, chunks, ..] over all earlier chunks, or `backward` over all later ones.
at::Tensor CarriedSums(const kernels::KernelTable& table, const at::Tensor& sums, bool backward);
// The first d of a row's d + 1 sums over the last one.
at::Tensor Quotient(const kernels::KernelTable& table, const at::Tensor& sums);
at::Tensor QuotientBackward(const kernels::KernelTable& table, const at::Tensor& sums, const at::Tensor& dy);

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
