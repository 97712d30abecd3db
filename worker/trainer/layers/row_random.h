#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

// What is random in a training pass (dropout, the router's jitter) as a pure function of the run's seed, the step, the
// row of the global batch and the place within it: any division of a batch into micro-batches or among ranks, any
// thread count, and a pass that is computed again draw the same.
//
// Value i of draw n of a step is a half of the (i / 2)-th output of SplitMix64 (Steele, Lea and Flood 2014) that is
// seeded by (seed, step, n). Draws are counted in the order in which the layers ask.
namespace allometry::trainer {

// Where this thread's passes draw from. Without BeginRows it is rows from 0 of step 0 of seed 0.
struct RowRandom {
  uint64_t key = 0;
  int64_t first_row = 0;
  int64_t rows = 1;
  uint64_t draws = 0;  // made so far in this pass
};
RowRandom CurrentRowRandom();
void SetRowRandom(const RowRandom& state);

// The next pass of this thread is over rows first_row ... first_row + rows - 1 of the global batch of `step`.
void BeginRows(uint64_t seed, int64_t step, int64_t first_row, int64_t rows);

// Random zeros and 1 / (1 - p), undefined if p is 0: then nothing is multiplied. The sizes' product is outer * rows *
// (values of a row); rows vary slowest but for the `outer` dimension (experts), which comes before them.
at::Tensor DropoutMask(at::IntArrayRef sizes, const at::TensorOptions& options, double p, int64_t outer = 1);
at::Tensor Drop(const at::Tensor& x, double p, bool training, int64_t outer = 1);
// Uniform between low and high, laid out likewise; float32 or float64.
at::Tensor RandomUniform(at::IntArrayRef sizes, const at::TensorOptions& options, double low, double high);

}  // namespace allometry::trainer
