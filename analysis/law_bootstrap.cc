#include "analysis/law_bootstrap.h"

#include <algorithm>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/uniform_int_distribution.hpp>
#include <cmath>

#include "analysis/mean.h"
#include "analysis/parallel.h"

namespace allometry::analysis {
namespace {

// How often each of n points is drawn in n draws.
std::vector<double> DrawCounts(size_t n, uint64_t seed, size_t replicate) {
  boost::random::mt19937_64 generator(seed * 0x9e3779b97f4a7c15u + replicate);
  boost::random::uniform_int_distribution<size_t> index(0, n - 1);
  std::vector<double> counts(n);
  for (size_t draw = 0; draw < n; ++draw) ++counts[index(generator)];
  return counts;
}

}  // namespace

std::vector<std::vector<double>> Bootstrap(const LawSolver& solver, std::span<const double> optimum, int replicates,
                                           uint64_t seed, int threads) {
  std::vector<std::vector<double>> out(static_cast<size_t>(std::max(0, replicates)));
  ParallelFor(out.size(), threads, [&](size_t i) {
    out[i] = solver.Refit(DrawCounts(solver.points(), seed, i), optimum).value_or(std::vector<double>());
  });
  return out;
}

Range PercentileInterval(std::vector<double> values, double confidence) {
  std::ranges::sort(values);
  const auto quantile = [&](double share) {
    const double at = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(at);
    const double above = values[std::min(below + 1, values.size() - 1)];
    return values[below] + (at - static_cast<double>(below)) * (above - values[below]);
  };
  return {quantile((1 - confidence) / 2), quantile((1 + confidence) / 2)};
}

double StandardDeviation(const std::vector<double>& values) {
  constexpr double kSquareIsFinite = 1e150;
  double largest = 0;
  for (double value : values) largest = std::max(largest, std::abs(value));
  if (largest <= kSquareIsFinite) return SampleSd(values).value_or(0);
  std::vector<double> scaled = values;
  for (double& value : scaled) value /= largest;
  return largest * SampleSd(scaled).value_or(0);
}

std::vector<double> Column(const std::vector<std::vector<double>>& replicates, size_t index) {
  std::vector<double> out;
  for (const std::vector<double>& replicate : replicates)
    if (!replicate.empty()) out.push_back(replicate[index]);
  return out;
}

}  // namespace allometry::analysis
