#pragma once

#include "worker/trainer/kernels/types.h"

// RMS norm over rows of d values (Zhang and Sennrich 2019, arXiv 1910.07467), as ops::NormForward and NormBackward.
namespace allometry::trainer::kernels {

// y = x scale weight with scale = (mean x^2 + epsilon)^-1/2.
struct NormForwardArgs {
  const void* x = nullptr;       // [rows, d]
  const void* weight = nullptr;  // [d]
  void* y = nullptr;             // [rows, d]
  float* scale = nullptr;        // [rows]
  int64_t rows = 0, d = 0;
  float epsilon = 1e-6f;
};

// dx = residual + the norm's gradient; dx may be the residual's or dy's memory.
struct NormBackwardArgs {
  const void* dy = nullptr;  // [rows, d]
  const void* x = nullptr;
  const void* weight = nullptr;
  const float* scale = nullptr;    // [rows], the forward pass's
  const void* residual = nullptr;  // [rows, d] or null
  void* dx = nullptr;              // [rows, d]
  void* dweight = nullptr;         // [d]
  float* workspace = nullptr;      // NormWorkspace(rows, d) values
  int64_t rows = 0, d = 0;
};

constexpr int64_t kLargestNormWidth = 12288;  // d of NormBackward: sums of a row's width lie in shared memory

// Parts of the rows whose weight gradients are summed apart.
constexpr int64_t NormParts(int64_t rows) { return rows < 4 * 512 ? (rows + 3) / 4 : 512; }
constexpr int64_t NormWorkspace(int64_t rows, int64_t d) { return NormParts(rows) * d; }

}  // namespace allometry::trainer::kernels
