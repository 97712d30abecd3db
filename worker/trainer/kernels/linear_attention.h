#pragma once

#include "worker/trainer/kernels/types.h"

// What lies between the products of FAVOR+ attention (Choromanski et al. 2021, arXiv 2009.14794), as
// layers/linear_attention.cc takes them: projections w x [rows, m] become positive features, chunks' sums become sums
// of all chunks before, and sums become quotients.
namespace allometry::trainer::kernels {

enum class FeatureSide : int { kQuery, kKey, kRelu };

// With wx a row of m projections, s = 1e-6 and c = m^-1/2:
//   query  f = c (exp(wx - max wx) + s)
//   key    f = c (exp(min(wx - |x|^2 / 2, 60)) + s)
//   relu   f = c (max(wx, 0) + s)
struct FeaturesForwardArgs {
  FeatureSide side = FeatureSide::kQuery;
  const void* projections = nullptr;  // [rows, m]
  const void* x = nullptr;            // [rows, e]; keys only
  void* features = nullptr;           // [rows, m]; may be the projections' memory
  int64_t rows = 0, m = 0, e = 0;
};

// The gradient by the projections, and for keys the part of x's that goes by |x|^2: dx_square = -x sum(dprojections).
// Read are the projections, not the features: those have lost what was rounded off.
struct FeaturesBackwardArgs {
  FeatureSide side = FeatureSide::kQuery;
  const void* projections = nullptr;
  const void* x = nullptr;          // keys only
  const void* dfeatures = nullptr;  // [rows, m]
  void* dprojections = nullptr;     // [rows, m]; may be dfeatures' memory
  void* dx_square = nullptr;        // [rows, e]; keys only
  int64_t rows = 0, m = 0, e = 0;
};

// out[n][g] = sum of x[n][h] over h < g, or with `backward` over h > g: the sums over all earlier chunks, and their
// gradient. Arrays are [n, chunks, size]; summed one after the other in float32; out may be x.
struct CarriedSumsArgs {
  const void* x = nullptr;
  void* out = nullptr;
  int64_t n = 0, chunks = 0, size = 0;
  bool backward = false;
};

// y[r][c] = sums[r][c] / max(sums[r][d], 1e-12), c < d: the last of a row's d + 1 sums is the denominator.
struct QuotientForwardArgs {
  const void* sums = nullptr;  // [rows, d + 1]
  void* y = nullptr;           // [rows, d]
  int64_t rows = 0, d = 0;
};
struct QuotientBackwardArgs {
  const void* sums = nullptr;
  const void* dy = nullptr;  // [rows, d]
  void* dsums = nullptr;     // [rows, d + 1]
  int64_t rows = 0, d = 0;
};

}  // namespace allometry::trainer::kernels
