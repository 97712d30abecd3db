#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/measures.h"
#include "common/result.h"
#include "records/records.h"

// The order of the architectures at each size, and whether it stays the same from size to size (docs/science.md,
// "Ranks"). Pure functions.
namespace allometry::analysis {

// Kendall's tau-b (Kendall 1945): (concordant - discordant) / sqrt((pairs - ties in a) (pairs - ties in b)), between -1
// and 1. Absent for fewer than two values, and where all values of one side are equal. Equal lengths; no NaN.
std::optional<double> KendallTauB(std::span<const double> a, std::span<const double> b);

struct RankRequest {
  std::string filter;                // as records::Filter
  std::vector<std::string> exclude;  // cell names; reported as left out by the user
  std::string quality = "upstream";  // "upstream", "downstream", a task or an average; "" is "upstream"
  std::vector<std::string> tasks;    // what D averages, tasks or averages; empty: as SelectCells chooses
  double confidence = 0.95;          // of the intervals, in (0.5, 1)
  uint64_t seed = 0;                 // of the draws
  int draws = 10'000;                // 0 to 10,000,000
  std::optional<double> sd;          // seed sd to assume when no cell has a replicate; above 0
};

struct RankedArchitecture {
  std::string architecture;
  double quality = 0;  // mean over seeds, higher is better
  int64_t seeds = 0;
  bool at_chance = false;                  // a downstream score in `quality` is at chance in some seed
  int rank = 1;                            // 1 + how many are better; equals share a rank
  std::optional<double> probability_best;  // of having the highest expected quality of this size
  std::optional<int> rank_low, rank_high;  // between them the rank of the expected quality, with the confidence
};

struct SizeRanking {
  std::string size;
  std::vector<RankedArchitecture> ranking;  // best first
};

// The agreement of two sizes' orders, over the architectures that both have.
struct RankAgreement {
  std::string first, second;  // sizes
  int architectures = 0;
  std::optional<double> tau;        // of the means
  std::optional<double> low, high;  // percentiles of the draws' tau
  std::string reason;               // why tau or its interval is missing; empty if neither is
};

struct RankResult {
  RankRequest request;
  Downstream downstream;
  std::vector<SizeRanking> sizes;         // in the order of the table
  std::vector<RankAgreement> agreements;  // every pair of sizes once
  std::optional<double> seed_sd;          // pooled over all cells, or the given one
  double degrees_of_freedom = 0;          // of the pooled sd; 0 when it was given or is unknown
  std::string no_probability;             // why there are none; empty if there are
  std::vector<LeftOut> left_out;
};

// Probabilities and intervals come from the joint draws of expected qualities that frontier membership uses. A draw
// adds the seeds' noise a second time to means that hold it already, so drawn taus lie nearer to zero than tau.
// kInvalidArgument: unknown quality, task or filter key, bad sd, draws or confidence; kNotFound: an unknown excluded
// cell; kFailedPrecondition: no usable cell.
common::Result<RankResult> Rank(const records::Table& table, const RankRequest& request);

}  // namespace allometry::analysis
