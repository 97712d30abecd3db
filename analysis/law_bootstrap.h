#pragma once

#include <cstdint>
#include <vector>

#include "analysis/law_solver.h"

// Resampling of points, and percentile intervals. Pure functions.
namespace allometry::analysis {

struct Range {
  double low = 0, high = 0;
};

// Fits to `replicates` samples of the points with replacement, each begun at `optimum`. Replicate i draws the same
// sample for every solver of as many points with the same seed, and does not depend on the number of threads. A sample
// that determines no fit leaves an empty vector.
std::vector<std::vector<double>> Bootstrap(const LawSolver& solver, std::span<const double> optimum, int replicates,
                                           uint64_t seed, int threads);

// Between the two quantiles that leave out (1 - confidence)/2 each, interpolated; values that are not finite count as
// they sort. `values` is not empty.
Range PercentileInterval(std::vector<double> values, double confidence);
double StandardDeviation(const std::vector<double>& values);  // 0 of fewer than two

// Parameter `index` of the replicates that have a fit.
std::vector<double> Column(const std::vector<std::vector<double>>& replicates, size_t index);

}  // namespace allometry::analysis
