#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

struct ParetoRequest {
  std::string filter;                // as records::Filter
  std::vector<std::string> exclude;  // cell names; reported as left out by the user
  Cost cost = Cost::kFlops;
  std::string quality = "upstream";  // "upstream", "downstream", a task or an average; "" is "upstream"
  FlopConvention flops = FlopConvention::kForward;
  std::vector<std::string> tasks;  // what D averages, tasks or averages; empty: as SelectCells chooses
  uint64_t seed = 0;               // of the draws
  int draws = 10'000;              // 0 to 10,000,000
  std::optional<double> sd;        // seed sd to assume when no cell has a replicate; above 0
  // Inner edges of the cost regions in which cells are ranked, rising; empty: three equal parts of the log of the cost
  // range.
  std::vector<double> region_edges;
};

// One architecture at one size.
struct ParetoPoint {
  std::string cell;  // "<architecture>-<size>"
  std::string architecture, size;
  double cost = 0, quality = 0;  // means over seeds; quality is higher when better (U is minus the loss)
  std::optional<double> parameters;
  int64_t seeds = 0;
  bool on_frontier = false;
  bool at_chance = false;  // a downstream score in `quality` is at chance in some seed
  int region = 0;
  std::optional<double> probability;       // of membership
  std::vector<double> rank_probabilities;  // in its region: 1st, 2nd, ...; empty when unknown
};

struct RegionBest {
  std::string architecture;
  double probability = 0;  // that its best cell here has the region's highest expected quality
};

// The half-open band of costs [low, high).
struct ParetoRegion {
  double low = 0, high = 0;  // of the band; the outer ends are the cheapest and the dearest cell
  int cells = 0;
  std::vector<RegionBest> best;  // most probable first; empty when probabilities are unknown
};

struct ParetoResult {
  ParetoRequest request;
  Downstream downstream;
  std::vector<ParetoPoint> points;  // by rising cost
  std::vector<ParetoRegion> regions;
  std::optional<double> seed_sd;  // pooled, or the given one
  double degrees_of_freedom = 0;  // of the pooled sd; 0 when it was given or is unknown
  std::string no_probability;     // why there are none; empty if there are
  std::vector<LeftOut> left_out;
};

// kInvalidArgument: unknown quality, task or filter key, bad sd, draws or edges; kNotFound: an unknown excluded cell;
// kFailedPrecondition: no usable cell, or times on unlike devices.
common::Result<ParetoResult> Pareto(const records::Table& table, const ParetoRequest& request);

}  // namespace allometry::analysis
