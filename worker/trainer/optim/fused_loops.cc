// Compiled with -O3 -fno-math-errno -ffp-contract=off: the loops below are written so that the compiler may vectorise
// them without reassociating anything, and every machine computes the same sums.
#include "worker/trainer/optim/fused_loops.h"

#include <algorithm>
#include <cmath>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ALLO_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ALLO_CLONES
#endif

namespace allometry::trainer::loops {
namespace {

constexpr int64_t kLanes = 16;    // independent partial sums: one or two vector registers
constexpr int64_t kBlock = 4096;  // elements whose float32 partial sums go into one double

inline double Total(const float* lanes) {
  double total = 0;
  for (int64_t k = 0; k < kLanes; ++k) total += lanes[k];
  return total;
}

}  // namespace

ALLO_CLONES double SumOfSquares(const float* __restrict x, int64_t n) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    float lanes[kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (int64_t k = 0; k < kLanes; ++k) lanes[k] += x[i + k] * x[i + k];
    for (int64_t k = 0; i < end; ++i, ++k) lanes[k] += x[i] * x[i];
    total += Total(lanes);
  }
  return total;
}

ALLO_CLONES void Scale(float* __restrict x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

ALLO_CLONES double UpdateSecondMoment(float* __restrict v, const float* __restrict g, int64_t n, float decay,
                                      float epsilon) {
  const float fresh = 1.0f - decay;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    float lanes[kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) {
        const float square = g[i + k] * g[i + k];
        v[i + k] = decay * v[i + k] + fresh * (square + epsilon);
        lanes[k] += square / v[i + k];
      }
    }
    for (int64_t k = 0; i < end; ++i, ++k) {
      const float square = g[i] * g[i];
      v[i] = decay * v[i] + fresh * (square + epsilon);
      lanes[k] += square / v[i];
    }
    total += Total(lanes);
  }
  return total;
}

ALLO_CLONES void ApplyUpdate(float* __restrict x, const float* __restrict g, const float* __restrict v, int64_t n,
                             float keep, float step) {
  for (int64_t i = 0; i < n; ++i) x[i] = keep * x[i] - step * (g[i] / std::sqrt(v[i]));
}

ALLO_CLONES double AddSquares(const float* __restrict g, float* __restrict column_sums, int64_t columns,
                              float epsilon) {
  double total = 0;
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    const int64_t end = std::min(columns, begin + kBlock);
    float lanes[kLanes] = {};
    int64_t j = begin;
    for (; j + kLanes <= end; j += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) {
        const float square = g[j + k] * g[j + k] + epsilon;
        column_sums[j + k] += square;
        lanes[k] += square;
      }
    }
    for (int64_t k = 0; j < end; ++j, ++k) {
      const float square = g[j] * g[j] + epsilon;
      column_sums[j] += square;
      lanes[k] += square;
    }
    total += Total(lanes);
  }
  return total;
}

ALLO_CLONES double SumOfScaledSquares(const float* __restrict g, const float* __restrict column_factors,
                                      int64_t columns, float row_factor) {
  double total = 0;
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    const int64_t end = std::min(columns, begin + kBlock);
    float lanes[kLanes] = {};
    int64_t j = begin;
    for (; j + kLanes <= end; j += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) {
        const float update = g[j + k] * column_factors[j + k] * row_factor;
        lanes[k] += update * update;
      }
    }
    for (int64_t k = 0; j < end; ++j, ++k) {
      const float update = g[j] * column_factors[j] * row_factor;
      lanes[k] += update * update;
    }
    total += Total(lanes);
  }
  return total;
}

ALLO_CLONES void ApplyFactoredUpdate(float* __restrict x, const float* __restrict g,
                                     const float* __restrict column_factors, int64_t columns, float keep,
                                     float row_factor) {
  for (int64_t j = 0; j < columns; ++j) x[j] = keep * x[j] - row_factor * (g[j] * column_factors[j]);
}

}  // namespace allometry::trainer::loops
