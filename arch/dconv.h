#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// Dynamic convolution (Wu et al. 2019, arXiv 1901.10430) in place of self-attention.
const Architecture& Dconv();

// Kernels of a layer at each position: one per channel unless the option `heads` shares them.
int64_t DconvKernels(const Shape& shape, const common::Json& options);
// Width of the feed-forward layers: a sixth of d_ff, which pays for the maps that the kernels come from.
int64_t DconvFeedForward(const Shape& shape);

}  // namespace allometry::arch
