#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "analysis/frontier.h"
#include "analysis/measures.h"
#include "common/result.h"
#include "records/records.h"

// The Pareto frontier of a sweep's cells (docs/science.md, "Pareto"). Pure functions.
namespace allometry::analysis {

// The names by which a request says what a cell costs; the empty name is the first.
enum class Cost {
  kFlops,                   // "flops": in the convention of the request
  kTrainingFlops,           // "training_flops"
  kParameters,              // "parameters"
  kNonEmbeddingParameters,  // "non_embedding_parameters"
  kActiveParameters,        // "active_parameters"
  kSeconds,                 // "seconds": device seconds of pretraining, on equal devices only
  kMemory,                  // "memory": peak bytes measured
};
const char* CostName(Cost cost);
const char* CostUnit(Cost cost);
common::Result<Cost> ParseCost(std::string_view name);
// Names with commas between them, as in "flops,memory"; none is the first alone. kInvalidArgument for a name twice.
common::Result<std::vector<Cost>> ParseCosts(std::string_view names);

// Where the hypervolume of a frontier begins: what is dearer or worse counts nothing.
struct HypervolumeReference {
  std::vector<double> costs;  // one for each cost of the request, in its unit; above 0
  double quality = 0;
};

struct ParetoRequest {
  std::string filter;                        // as records::Filter
  std::vector<std::string> exclude;          // cell names; reported as left out by the user
  std::vector<Cost> costs = {Cost::kFlops};  // one or more, each once
  std::string quality = "upstream";          // "upstream", "downstream", a task or an average; "" is "upstream"
  FlopConvention flops = FlopConvention::kForward;
  std::vector<std::string> tasks;  // what D averages, tasks or averages; empty: as SelectCells chooses
  uint64_t seed = 0;               // of the draws
  int draws = 10'000;              // 0 to 10,000,000
  std::optional<double> sd;        // seed sd to assume when no cell has a replicate; above 0
  // Inner edges of the regions of the first cost in which cells are ranked, rising; empty: three equal parts of the log
  // of its range.
  std::vector<double> region_edges;
  std::optional<HypervolumeReference> reference;  // absent: the dearest of each cost and the worst quality of the cells
};

// One architecture at one size.
struct ParetoPoint {
  std::string cell;  // "<architecture>-<size>"
  std::string architecture, size;
  std::vector<double> costs;  // means over seeds, in the order of the request
  double quality = 0;         // mean over seeds; higher is better (U is minus the loss)
  std::optional<double> parameters;
  int64_t seeds = 0;
  bool on_frontier = false;
  bool at_chance = false;  // a downstream score in `quality` is at chance in some seed
  int region = 0;
  std::optional<double> probability;       // of membership
  std::vector<double> rank_probabilities;  // in its region: 1st, 2nd, ... up to kMostRanks; empty when unknown
  double hypervolume = 0;                  // what the frontier's would lose without it; 0 when there is none

  double cost() const { return costs.front(); }
};

struct RegionBest {
  std::string architecture;
  double probability = 0;  // that its best cell here has the region's highest expected quality
};

// The half-open band [low, high) of the first cost.
struct ParetoRegion {
  double low = 0, high = 0;  // of the band; the outer ends are the cheapest and the dearest cell
  int cells = 0;
  std::vector<RegionBest> best;  // most probable first; empty when probabilities are unknown
};

struct ParetoResult {
  ParetoRequest request;
  Downstream downstream;
  std::vector<ParetoPoint> points;  // by rising first cost
  std::vector<ParetoRegion> regions;
  std::optional<double> seed_sd;  // pooled, or the given one
  double degrees_of_freedom = 0;  // of the pooled sd; 0 when it was given or is unknown
  std::string no_probability;     // why there are none; empty if there are
  HypervolumeReference reference;
  // Between the frontier and the reference: decades of each cost times the quality's unit. Absent of a frontier too
  // large for it (MostPoints in hypervolume.h).
  std::optional<double> hypervolume;
  std::string no_hypervolume;  // why it is absent; empty if it is not
  std::vector<LeftOut> left_out;
};

// A cell that lacks one of the costs is left out. kInvalidArgument: no costs or one twice, unknown quality, task or
// filter key, bad sd, draws, edges or reference; kNotFound: an unknown excluded cell;
// kFailedPrecondition: no usable cell, or times on unlike devices.
common::Result<ParetoResult> Pareto(const records::Table& table, const ParetoRequest& request);

}  // namespace allometry::analysis
