#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/axis_pair.h"
#include "analysis/line.h"
#include "analysis/size_curve.h"
#include "analysis/slopes.h"
#include "common/result.h"
#include "records/records.h"

// Where two architectures are equally good (docs/science.md, "Crossovers"). Pure functions.
namespace allometry::analysis {

// A band of x in which the two cannot be told apart. A missing end: for lines the band has no end there, for curves it
// goes on beyond the common range.
struct CrossoverBand {
  std::optional<double> low, high;
};

// The answer for one pair. x is transformed as in the slopes (log10 or ln of F, P and seconds).
struct Crossover {
  std::string first, second;
  // "observed": the whole band lies inside both measured ranges; "extrapolated": it does not; "extrapolated (law)": of
  // curved lines, the laws E + A/C^alpha of both cross outside, at larger costs or else at smaller ones; "no bounded
  // crossover": two rays or everything, or laws of which too many replicates do not cross; "no crossover shown": curves
  // that come near each other, and whose estimates do not cross; "refused": see `reason`.
  std::string verdict;
  std::string reason;                           // of all but the first two
  bool curved = false;                          // quadratics inside the common range, or laws, else lines
  VarianceBasis basis = VarianceBasis::kSeeds;  // what t se(D) covers
  std::vector<double> at;                       // where the estimates cross, rising
  std::vector<CrossoverBand> bands;             // {x: |D(x)| <= t se D(x)}, rising; of curves, inside the common range
  std::optional<std::pair<double, double>> common_range;  // measured by both; absent when there is none
  std::string ahead_below, ahead_above;                   // the better one on either side of a single bounded band
  // E, A and alpha of both, when laws gave the answer.
  std::optional<std::pair<std::vector<double>, std::vector<double>>> laws;
};

// Fieller's set (Fieller 1954) of D(x) = first's line minus second's: with t of Satterthwaite's degrees of freedom at
// each x it holds the true crossing of the lines with probability `confidence`. It is an interval exactly when the
// slopes differ at that level. If either is curved: quadratics through the size means (a line through two), inside the
// common range only. Names are left empty but for "first" and "second" in the two `ahead_` members. Never throws for
// finite samples.
Crossover FindCrossover(std::span<const SizeSamples> first, std::span<const SizeSamples> second, double confidence);

struct CrossoversRequest {
  SlopesRequest slopes;  // which cells, conventions and confidence; its baseline is not read
  AxisPair axes;
  std::string first, second;  // that pair; `first` alone: it against all others; neither: all pairs
};

struct CrossoversResult {
  CrossoversRequest request;
  Downstream downstream;
  std::vector<Crossover> crossovers;  // in the order of the architectures
  std::vector<LeftOut> left_out;      // of the two axes
};

// Errors as Slopes; kNotFound: no such architecture; kInvalidArgument: a pair of one, or more than 10,000 pairs;
// kFailedPrecondition: fewer than two architectures. Where curved lines of U against F or P do not cross inside the
// common range, the laws of both are asked, if both fits converge; `reason` says what kept them from an answer. The
// level holds for each pair alone: nothing is adjusted for their number.
common::Result<CrossoversResult> Crossovers(const records::Table& table, const CrossoversRequest& request);

}  // namespace allometry::analysis
