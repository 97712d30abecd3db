#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// The backbone: T5 v1.0 (Raffel et al. 2020, arXiv 1910.10683). The instance lives for ever.
const Architecture& Transformer();

}  // namespace allometry::arch
