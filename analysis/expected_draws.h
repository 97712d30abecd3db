#pragma once

#include <boost/random/chi_squared_distribution.hpp>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/normal_distribution.hpp>
#include <cstdint>
#include <optional>
#include <vector>

// Joint draws of the expected qualities of cells, for every probability that the analysis tells (docs/science.md,
// "Pareto"). Not thread-safe: one object a thread.
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
// (a multivariate t); a given s makes the draws normal. Boost's generators and distributions give the same numbers on
// every machine; those of the standard library need not.
class ExpectedDraws {
 public:
  ExpectedDraws(uint64_t seed, SeedSpread spread)
      : generator_(seed), normal_(0, 1), chi_squared_(spread.degrees > 0 ? spread.degrees : 1), spread_(spread) {}

  // One joint draw; the three have one entry a cell.
  void Next(const std::vector<double>& means, const std::vector<int64_t>& seeds, std::vector<double>* drawn);

 private:
  boost::random::mt19937_64 generator_;
  boost::random::normal_distribution<double> normal_;
  boost::random::chi_squared_distribution<double> chi_squared_;
  SeedSpread spread_;
};

}  // namespace allometry::analysis
