#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// Heads of the first self-attention of a decoder layer: twice the shape's, up to the option max_heads.
int64_t EvolvedWideHeads(const Shape& shape, const common::Json& options);

const Architecture& Evolved();

}  // namespace allometry::arch
