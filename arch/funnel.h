#pragma once

#include <array>

#include "arch/architecture.h"

namespace allometry::arch {

// Funnel Transformer (Dai et al. 2020, arXiv 2006.03236): an encoder whose sequence is halved twice.
const Architecture& Funnel();

constexpr int64_t kFunnelBlocks = 3;
constexpr int64_t kFunnelMultiple = 4;  // input lengths are padded to a multiple of this

// Encoder layers of each block, floor((L + 2 - b) / 3): four layers are 2, 1 and 1.
std::array<int64_t, kFunnelBlocks> FunnelBlockLayers(int64_t encoder_layers);

// The length that the encoder's first block sees.
int64_t FunnelPaddedLength(int64_t inputs);

}  // namespace allometry::arch
