#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// Mixture of Softmaxes (Yang et al. 2018, arXiv 1711.03953) at the output of the backbone.
const Architecture& Mos();

}  // namespace allometry::arch
