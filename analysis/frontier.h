#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// Frontiers of costs against quality: true dominance, no convex hull, no smoothing (docs/science.md, "Pareto"). Pure
// functions.
namespace allometry::analysis {

// One architecture at one size, over its seeds. Lower cost and higher quality are better.
struct FrontierCell {
  std::string name;
  std::vector<double> costs;      // one or more, as many for every cell
  std::vector<double> qualities;  // one a seed, at least one
  int region = 0;                 // cells of one region are ranked among each other
};

// Ranks of a region that are counted: the first ten, so that an answer grows with its cells and not with their square.
inline constexpr size_t kMostRanks = 10;

struct FrontierPoint {
  std::string name;
  double quality = 0;  // mean over seeds
  int64_t seeds = 0;
  bool on_frontier = false;
  // Of the expected qualities; absent without replicates and without a given sd.
  std::optional<double> probability;       // of lying on the frontier
  std::vector<double> rank_probabilities;  // of being 1st, 2nd, ... up to kMostRanks in its region; empty when unknown
};

struct FrontierOptions {
  int draws = 10'000;  // 0: no probabilities
  uint64_t seed = 0;
  std::optional<double> seed_sd;  // used when no cell has two seeds; normal draws then replace Student's t
  int threads = 0;                // 0: all that the machine has. Changes no result
};

struct Frontier {
  std::vector<FrontierPoint> points;  // in the order of the cells
  std::optional<double> seed_sd;      // pooled over all cells, or the given one
  double degrees_of_freedom = 0;      // of the pooled sd; 0 when it was given or is unknown
};

// A cell is on the frontier unless another one costs no more in every cost and is no worse, and is strictly better in
// one of these; equals do not exclude each other. Probabilities: joint draws of all expected qualities, mean + t s /
// sqrt(n). s is the pooled seed sd, unknown and the same for every cell, so its chi-squared draw is shared within a
// joint draw (a multivariate t). A pooled sd of zero gives no probabilities. Equal arguments give equal results on
// every machine.
//
// A cell that is beaten by more than five of its own and five of the other's standard errors, at the largest sd that
// any draw has, is not drawn: its probability is 0, and would be at most 3e-7 (1e-12 where both have as many seeds).
Frontier FindFrontier(const std::vector<FrontierCell>& cells, const FrontierOptions& options);

}  // namespace allometry::analysis
