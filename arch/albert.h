#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// ALBERT (Lan et al. 2019, arXiv 1909.11942): one shared block per stack, factorised embedding.
const Architecture& Albert();

// Width of the factorised embedding; 0 = not factorised.
int64_t AlbertFactor(const Shape& shape, const common::Json& options);

}  // namespace allometry::arch
