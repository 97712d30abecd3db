#pragma once

#include "worker/trainer/layers/attention.h"

namespace allometry::trainer {

// Attention without norm and residual, [b, t, d], for layers that sum or gate what it returns (AttentionSublayer is the
// backbone's, with both). `h_btd` is already normalised.

// Over h itself, with positions and mask_bs of the context. `dropout` of the probabilities; 0 in evaluation.
at::Tensor SelfAttend(const Attention& attention, const at::Tensor& h_btd, const StackContext& context, double dropout);
// Over the memory of the context.
at::Tensor CrossAttend(const Attention& attention, const at::Tensor& h_btd, const StackContext& context,
                       double dropout);

// The same for one further position of a decoder; see Sublayer::Step. The cache holds keys and values [b h, k, e].
at::Tensor SelfAttendStep(const Attention& attention, const at::Tensor& h_b1d, const StackContext& context,
                          LayerCache& cache);
at::Tensor CrossAttendStep(const Attention& attention, const at::Tensor& h_b1d, const StackContext& context,
                           LayerCache& cache);

}  // namespace allometry::trainer
