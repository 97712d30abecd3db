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
  uint64_t key = 0;  // of seed and step
  // If defined, the key's bits as int64 [1] on a device, where a CUDA graph finds each step's; `key` is not used then,
  // and only kernels can draw.
  at::Tensor device_key;
  int64_t first_row = 0;
  int64_t rows = 1;
  uint64_t draws = 0;  // made so far in this pass
};
RowRandom CurrentRowRandom();
void SetRowRandom(const RowRandom& state);

// The next pass of this thread is over rows first_row ... first_row + rows - 1 of the global batch of `step`.
void BeginRows(uint64_t seed, int64_t step, int64_t first_row, int64_t rows);
// The same with the key where the device reads it: int64 [1], which holds StepKey of the step.
void BeginRows(const at::Tensor& device_key, int64_t first_row, int64_t rows);
int64_t StepKey(uint64_t seed, int64_t step);

// A further draw of this pass for a kernel with a hash of its own, over `examples` that divide among the rows: example
// i of them is number first + i of the step's.
struct RowDraw {
  uint64_t key = 0;       // of seed and step
  at::Tensor device_key;  // or where it lies: RowRandom::device_key
  uint64_t number = 0;    // of the draw within the pass
  int64_t first = 0;
};
RowDraw NextRowDraw(int64_t examples);

// How a random tensor lies by rows: as [outer, blocks, rows, inner], without the ones mostly just [rows, inner].
// `outer` (experts) is first ... first + outer - 1 of `of`. Block k holds the rows of rank k, which has `block_rows` of
// the global batch; `own_block` is this rank's.
struct RowLayout {
  int64_t outer = 1, first = 0, of = 1;
  int64_t blocks = 1, own_block = 0, block_rows = 0;
};

// Random zeros and 1 / (1 - p), undefined if p is 0: then nothing is multiplied.
at::Tensor DropoutMask(at::IntArrayRef sizes, const at::TensorOptions& options, double p, const RowLayout& by = {});
at::Tensor Drop(const at::Tensor& x, double p, bool training, const RowLayout& by = {});
// Uniform between low and high, laid out likewise; float32 or float64.
at::Tensor RandomUniform(at::IntArrayRef sizes, const at::TensorOptions& options, double low, double high);

}  // namespace allometry::trainer
