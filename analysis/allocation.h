#pragma once

#include <optional>
#include <span>
#include <vector>

// How many seeds to run where (docs/science.md, "Next runs"). Pure functions.
namespace allometry::analysis {

// One size of one architecture. The variance to be lowered is the sum of weight / n over all of them.
struct SeedCell {
  double weight = 0;  // a_i^2 sigma_i^2, at least 0
  double cost = 0;    // of one seed, above 0
  int has = 0;        // seeds that have run
};

struct AllocationLimits {
  double budget = 0;  // for seeds beyond those that have run
  int floor = 2;      // seeds of a cell, or what has run if that is more
  int cap = 5;        // seeds of a cell, or what has run if that is more
};

// What the floor costs beyond what has run.
double CostOfFloor(std::span<const SeedCell> cells, const AllocationLimits& limits);

// The seeds of each cell, those that have run included: n_i proportional to sqrt(weight_i / cost_i), which minimises
// the variance for a continuous n (Neyman 1934, with costs), held between floor and cap and rounded down; then filled
// by the largest weight / (n (n + 1) cost) that the rest of the budget pays; then one or two seeds are exchanged for
// others as long as that lowers the variance. Two are tried up to 40 cells. Absent when the budget does not pay the
// floor.
std::optional<std::vector<int>> AllocateSeeds(std::span<const SeedCell> cells, const AllocationLimits& limits);

// Sum of weight / n. Infinite where n is 0 and the weight is not.
double AllocatedVariance(std::span<const SeedCell> cells, std::span<const int> seeds);

}  // namespace allometry::analysis
