#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// Frontiers of cost against quality: true dominance, no convex hull, no smoothing (docs/science.md, "Pareto"). Pure
// functions.
namespace allometry::analysis {

// One architecture at one size, over its seeds. Lower cost and higher quality are better.
struct FrontierCell {
  std::string name;
  double cost = 0;
  std::vector<double> qualities;  // one a seed, at least one
  int region = 0;                 // cells of one region are ranked among each other
};

struct FrontierPoint {
  std::string name;
  double cost = 0;
  double quality = 0;  // mean over seeds
  int64_t seeds = 0;
  bool on_frontier = false;
  // Of the expected qualities; absent without replicates and without a given sd.
  std::optional<double> probability;       // of lying on the frontier
  std::vector<double> rank_probabilities;  // of being 1st, 2nd, ... in its region; empty when unknown
};

struct FrontierOptions {
  int draws = 10'000;  // 0: no probabilities
  uint64_t seed = 0;
  std::optional<double> seed_sd;  // used when no cell has two seeds; normal draws then replace Student's t
};

struct Frontier {
  std::vector<FrontierPoint> points;  // in the order of the cells
  std::optional<double> seed_sd;      // pooled over all cells, or the given one
  double degrees_of_freedom = 0;      // of the pooled sd; 0 when it was given or is unknown
};

// A cell is on the frontier unless another one costs no more and is no worse, and is strictly better in one of the two;
// equals do not exclude each other. Probabilities: joint draws of all expected qualities, mean + t s / sqrt(n). s is
// the pooled seed sd, unknown and the same for every cell, so its chi-squared draw is shared within a joint draw (a
// multivariate t). A pooled sd of zero gives no probabilities. Equal arguments give equal results on every machine.
Frontier FindFrontier(const std::vector<FrontierCell>& cells, const FrontierOptions& options);

}  // namespace allometry::analysis
