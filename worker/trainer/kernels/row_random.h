#pragma once

#include "worker/trainer/kernels/types.h"

// What layers/row_random.h draws: the same 32 bits for value `number` of a draw as on a CPU, a half of output number /
// 2 of SplitMix64 that starts from the key.
namespace allometry::trainer::kernels {

// Dense values [outer, blocks, rows, inner]. Value (o, b, r, i) is number
// ((first_row + b block_rows + r) of + first + o) inner + i.
struct RandomRows {
  uint64_t key = 0;  // of the draw; with `step_key` what makes the draw's of it: SplitMix64 of *step_key ^ key
  const uint64_t* step_key = nullptr;  // on the device, where it changes from step to step of one captured graph
  int64_t outer = 1, blocks = 1, rows = 1, inner = 0;
  int64_t first_row = 0, block_rows = 0;
  int64_t first = 0, of = 1;
};

// scale where the bits reach the threshold, otherwise 0.
struct RandomMaskArgs {
  RandomRows where;
  void* out = nullptr;
  uint32_t threshold = 0;
  float scale = 1;
};

// low + width * bits / 2^32.
struct RandomUniformArgs {
  RandomRows where;
  float* out = nullptr;
  float low = 0, width = 1;
};

}  // namespace allometry::trainer::kernels
