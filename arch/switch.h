#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// Switch Transformer (Fedus et al. 2021, arXiv 2101.03961): some feed-forward layers are 32 experts, of which each
// token uses one.
const Architecture& Switch();

constexpr int64_t kSwitchExperts = 32;

// Whether the feed-forward layer of block `index` (from 0) of a stack is made of experts.
bool SwitchHasExperts(const common::Json& options, int64_t index);

// Tokens of one sequence that one expert serves: max(4, floor(1.2 * length / 32)). `length` is what the recipe
// configures for the stack, never that of a padded batch or of what has been decoded so far.
int64_t SwitchCapacity(int64_t length);

}  // namespace allometry::arch
