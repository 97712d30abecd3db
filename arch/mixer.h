#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// MLP-Mixer (Tolstikhin et al. 2021, arXiv 2105.01601): the encoder mixes positions by a two-layer perceptron over all
// of them, so its length is part of the model.
const Architecture& Mixer();

// Hidden units of a token-mixing layer.
int64_t MixerHidden(const Shape& shape);

}  // namespace allometry::arch
