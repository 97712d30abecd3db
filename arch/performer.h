#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// Performer (Choromanski et al. 2020, arXiv 2009.14794): self-attention linear in the length, by random features.
const Architecture& Performer();

constexpr int64_t kPerformerFeatures = 256;

// How the decoder cuts a sequence: equal chunks of at most 64 positions, the last one padded. Sums over whole chunks
// are carried from chunk to chunk; within a chunk every query meets every key.
struct PerformerChunks {
  int64_t count = 0;
  int64_t size = 0;
  int64_t padded_length() const { return count * size; }
};
PerformerChunks PerformerChunksOf(int64_t length);

}  // namespace allometry::arch
