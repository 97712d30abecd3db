#pragma once

#include <vector>

#include "worker/trainer/kernels/types.h"

// The optimisers' steps over all tensors of a model at once. What a step depends on beside its constants (step count,
// learning rate, clipping) is read from device memory, so that a CUDA graph can hold it. Masters and states are
// float32, gradients of the call's DataType; the model's bfloat16 copy, if it has one, is written on the way.
//
// Work is dealt out in tiles of kTileRows x kTileColumns. A tensor whose second moments are factored is a stack of
// matrices in its last two dimensions; any other is one row of values, laid out as rows of kTileColumns.
namespace allometry::trainer::kernels {

constexpr int kTileRows = 64, kTileColumns = 256;

struct OptimizerTensor {
  float* value = nullptr;
  Bf16* copy = nullptr;            // of the value, for the model; or null
  const void* gradient = nullptr;  // null: the tensor is left as it is
  float* first_moment = nullptr;   // AdamW
  float* second_moment = nullptr;  // AdamW; Adafactor where it does not factor
  float* row_means = nullptr;      // [matrices, rows] and [matrices, columns]: Adafactor where it factors
  float* column_means = nullptr;
  // The rest is PlanOptimizer's.
  int64_t count = 0, rows = 0, columns = 0;
  int64_t whole_count = 0;                                  // of all parts, where this is one of several
  int64_t row_sums = 0, column_sums = 0, matrix_means = 0;  // where they lie in the workspace
  int32_t first_tile = 0, tiles = 0;
  bool factored = false;
};

struct OptimizerTile {
  int32_t tensor = 0, matrix = 0, row = 0, column = 0;
};

// 256 row means (or, `of_columns`, column means) of one matrix.
struct OptimizerMeans {
  int32_t tensor = 0, matrix = 0, first = 0;
  bool of_columns = false;
};

// How the work is dealt out, for the lists that follow to be copied to the device.
struct OptimizerPlan {
  std::vector<OptimizerTensor> tensors;  // as given, with the plan's part filled in
  std::vector<OptimizerTile> tiles;      // those of factored tensors first
  std::vector<OptimizerMeans> means;
  std::vector<OptimizerTile> matrices;  // of factored tensors: tensor and matrix
  int64_t factored_tiles = 0;
  int64_t workspace = 0;  // floats
};

struct OptimizerShape {
  int64_t matrices = 1, rows = 1, columns = 1;
  bool factored = false;
  int64_t parts = 1;  // the tensor is one of so many equal ones, on a rank each, that are one variable to the optimiser
};
OptimizerPlan PlanOptimizer(const std::vector<OptimizerTensor>& tensors, const std::vector<OptimizerShape>& shapes);

// A plan on the device.
struct OptimizerWork {
  const OptimizerTensor* tensors = nullptr;
  const OptimizerTile* tiles = nullptr;
  const OptimizerMeans* means = nullptr;
  const OptimizerTile* matrices = nullptr;
  float* workspace = nullptr;
  int64_t tensor_count = 0, tile_count = 0, factored_tiles = 0, means_count = 0, matrix_count = 0;
  int64_t sums = 0;  // floats of the workspace before the tiles' and the tensors'
  int64_t totals = 0;  // where the tensors' begin: float [tensor_count, 2]
};
OptimizerWork WorkOf(const OptimizerPlan& plan);  // the counts; the pointers are the caller's to fill in

// norm: the Euclidean norm of all gradients; factor: limit / norm where norm > limit > 0, otherwise 1. Partial sums are
// double. Either may be null.
struct GradientNormArgs {
  OptimizerWork work;
  double* partial = nullptr;  // [tile_count]
  float* norm = nullptr;
  float* factor = nullptr;
  float limit = 0;
};

// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), with g = factor gradient and t = steps[tensor], counted from 1:
//   x <- x - rate weight_decay x;  m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2
//   x <- x - rate / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + epsilon)
struct AdamWArgs {
  OptimizerWork work;
  const float* steps = nullptr;  // one for each tensor, since some may have no gradient now and then
  const float* rate = nullptr;
  const float* factor = nullptr;      // of the gradients; null: 1
  double beta1 = 0.9, beta2 = 0.999;  // 1 - beta2 has lost five digits in float32
  float epsilon = 1e-8f, weight_decay = 0;
};

// Adafactor by the formulas of optim/adafactor.h, with g = factor gradient and t = *step, counted from 1. A step is
// `adafactor_measure`, then `adafactor_apply` with the same arguments. In between the work's totals are each tensor's
// sums of squares, of its value and of its update before clipping: for one of several parts, to be added up over them.
struct AdafactorArgs {
  OptimizerWork work;
  const int64_t* step = nullptr;
  const float* rate = nullptr;
  const float* factor = nullptr;
  float decay_exponent = 0.8f, clip_threshold = 1, epsilon_gradient = 1e-30f, epsilon_scale = 1e-3f, weight_decay = 0;
};

}  // namespace allometry::trainer::kernels
