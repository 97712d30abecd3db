#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/axis_pair.h"
#include "analysis/line.h"
#include "analysis/slopes.h"
#include "common/result.h"
#include "records/records.h"

// Which cells to run next, so that slopes become known better (docs/science.md, "Next runs"). Pure functions.
namespace allometry::analysis {

// The half width that a seed interval is expected to have with these seeds (one entry a size) if the variances are what
// is known of them now: `terms` are SlopeEstimate::seed_terms. Three and more seeds at every size use each size's own
// variance, others the pooled one, as the interval itself does. The mean over future estimates of the variance: in
// closed form when pooled, else from 1,000 draws, good to about two percent. Absent without replicates.
std::optional<double> ExpectedHalfWidth(std::span<const double> terms, std::span<const int> seeds, double confidence,
                                        bool x_varies = false);

// The smallest difference of two slopes that a test at 1 - confidence shows with probability `power`: both over k sizes
// of sum of squares Sxx, n seeds at each, seed standard deviation s: (t_(1+confidence)/2 + t_power) s sqrt(2 / (n Sxx))
// with 2 k (n - 1) degrees of freedom. n at least 2, k at least 2.
double SmallestDifference(double seed_sd, double sxx, int sizes, int seeds, double confidence = 0.95,
                          double power = 0.8);

struct SuggestRequest {
  SlopesRequest slopes;                    // which cells, conventions and confidence; its baseline is not read
  AxisPair axes;                           // whose slopes; others have other units, so one kind at a time
  std::vector<std::string> architectures;  // whose slopes; empty: all
  double budget_flops = 0;                 // training FLOPs to spend; above 0
  int cap = 5;                             // seeds of a size, unless more have run; at least 2
  std::optional<double> delta;             // difference of two slopes to plan for; above 0
};

struct SuggestedCell {
  std::string architecture, size;
  uint64_t seed = 0;  // one that no cell of this architecture and size has, whatever became of it
  double flops = 0;   // training FLOPs, as the mean of the size's cells
};

// One more size for a slope, with two seeds.
struct SuggestedSize {
  std::string architecture;
  double x = 0;      // transformed; one step of the grid beyond its largest or smallest size
  double flops = 0;  // of its two seeds, from how training FLOPs grew with x over the two sizes next to it
  bool affordable = false;
  double line_half_now = 0, line_half_after = 0;  // of the line interval, if sizes stray as they do now
};

struct SuggestedSlope {
  std::string architecture;
  std::optional<double> alpha;
  std::optional<double> half_now, half_after;  // of the seed interval; `after` with all suggested cells
  std::string refused;                         // why nothing is suggested for this slope
};

// How many seeds two slopes need at a number of sizes, a grid step apart each.
struct PowerRow {
  int sizes = 0;
  std::optional<int> seeds;        // the fewest that show `delta`; absent above 1,000
  double smallest_difference = 0;  // with those seeds (with 1,000 where absent)
};

struct SuggestResult {
  SuggestRequest request;
  Downstream downstream;
  std::vector<SuggestedCell> cells;  // by architecture, size and seed
  double flops = 0;                  // of all of them
  std::vector<SuggestedSlope> slopes;
  std::vector<SuggestedSize> new_sizes;  // most affordable narrowing first
  std::optional<double> seed_sd;         // pooled over the chosen slopes; of power
  std::vector<PowerRow> power;           // for 2 to 8 sizes; empty without `delta`
  std::vector<std::string> notes;        // sentences that a reader must know
  std::vector<LeftOut> left_out;
};

// Errors as Slopes; kInvalidArgument: a budget, cap or delta out of range; kNotFound: an unknown architecture;
// kFailedPrecondition: no slope with a variance to lower, or a budget below what brings every size to two seeds (the
// message says how much that is).
common::Result<SuggestResult> Suggest(const records::Table& table, const SuggestRequest& request);

}  // namespace allometry::analysis
