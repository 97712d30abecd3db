#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// Frontiers of cost against quality: true dominance, no convex hull, no smoothing (docs/science.md, "Pareto").
namespace allometry::analysis {

// One architecture at one size, over its seeds. Lower cost and higher quality are better.
struct ParetoCell {
  std::string name;
  double cost = 0;
  std::vector<double> qualities;  // one a seed, at least one
};

struct ParetoPoint {
  std::string name;
  double cost = 0;
  double quality = 0;  // mean over seeds
  int64_t seeds = 0;
  bool on_frontier = false;
  // Probability that the expected quality is on the frontier; absent without replicates and without a given sd.
  std::optional<double> probability;
};

struct ParetoOptions {
  int draws = 10'000;
  uint64_t seed = 0;
  std::optional<double> seed_sd;  // used when no cell has two seeds; a normal distribution then replaces Student's t
};

// Points in the order of the cells. A cell is on the frontier unless another one costs no more and is no worse, and is
// strictly better in one of the two; equals do not exclude each other. Probabilities: draws of every cell's expected quality,
// mean + t s / sqrt(n), with s the standard deviation of seeds pooled over all cells and t with its degrees of freedom.
// Equal arguments give equal results on every machine.
std::vector<ParetoPoint> ParetoFrontier(const std::vector<ParetoCell>& cells, const ParetoOptions& options);

}  // namespace allometry::analysis
