#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// GLU-Transformer (Dauphin et al. 2017, arXiv 1612.08083; Shazeer 2020, arXiv 2002.05202): gated feed-forward layers.
const Architecture& Glu();

}  // namespace allometry::arch
