#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// Lightweight convolution (Wu et al. 2019, arXiv 1901.10430) in place of self-attention.
const Architecture& Lconv();

}  // namespace allometry::arch
