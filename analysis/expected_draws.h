#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

// Joint draws of the expected qualities of cells, for every probability that the analysis tells (docs/science.md,
// "Pareto"). Pure values.
namespace allometry::analysis {

// The seed standard deviation that all cells share.
struct SeedSpread {
  double sd = 0;
  double degrees = 0;  // 0: the sd was given, and is taken as known
};

// Pooled over all cells; `given` when no cell has two seeds; absent without either. `seeds[i]` holds the qualities of
// the seeds of cell i, at least one.
std::optional<SeedSpread> PooledSpread(const std::vector<const std::vector<double>*>& seeds,
                                       std::optional<double> given);

// mean + t s / sqrt(n). s is unknown and the same for every cell, so its chi-squared draw is shared within a joint draw
// (a multivariate t); a given s makes the draws normal. Every joint draw has a generator of its own, begun from the
// seed and the draw's number, so that threads may share the draws in any way without changing one. Generator and
// distributions give the same numbers on every machine; those of the standard library need not.
class ExpectedDraws {
 public:
  ExpectedDraws(uint64_t seed, SeedSpread spread) : seed_(seed), spread_(spread) {}

  // Joint draw `number`. `errors` are 1 / sqrt(n); the three have one entry a cell.
  void Draw(uint64_t number, std::span<const double> means, std::span<const double> errors,
            std::span<double> drawn) const;

  // The largest s of the draws 0 to `draws` - 1, which bounds how far they stray.
  double LargestSd(int draws) const;

 private:
  uint64_t seed_;
  SeedSpread spread_;
};

}  // namespace allometry::analysis
