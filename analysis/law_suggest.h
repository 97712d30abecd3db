#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "analysis/law_study.h"
#include "analysis/suggest.h"
#include "common/json.h"

// Which cells to run next, so that the exponents of laws become known better (docs/science.md, "Next runs"). Pure
// functions.
namespace allometry::analysis {

struct LawSuggestRequest {
  SlopesRequest slopes;                    // which cells, conventions and confidence
  LawForm form = LawForm::kCompute;        // or kParametersTokens, of which alpha and beta are narrowed
  std::vector<std::string> architectures;  // whose laws; empty: all
  double budget_flops = 0;                 // training FLOPs to spend; above 0
  int cap = 5;                             // seeds of a size, unless more have run; at least 2
  uint64_t seed = 1;                       // of the simulation
  int simulations = 1000;                  // data sets; 100 to 100,000. With 1,000 a half width is good to 5 %
};

// The exponent of one law. Half widths are half of the percentile interval over simulated data sets: the law as fitted,
// the sizes and numbers of seeds as they are (or would be), normal noise of ln L with the sd below.
struct SuggestedExponent {
  std::string architecture, name;  // "alpha" or "beta"
  std::optional<double> value, half_now, half_after;
  std::string refused;
};

// One more size of kCompute, a grid step beyond its dearest, with two seeds.
struct SuggestedLawSize {
  std::string architecture;
  double x = 0;      // C in the convention of the request
  double flops = 0;  // training FLOPs of its two seeds, from how they grew over the two dearest sizes
  bool affordable = false;
  double half_now = 0, half_after = 0;  // of alpha
};

struct LawSuggestResult {
  LawSuggestRequest request;
  Downstream downstream;
  std::vector<SuggestedCell> cells;  // by architecture, size and seed
  double flops = 0;
  std::vector<SuggestedExponent> exponents;
  std::vector<SuggestedLawSize> new_sizes;
  std::vector<std::string> notes;
  std::vector<LeftOut> left_out;
};

// Seeds are chosen one by one, each by how much it lowers the sum of the exponents' variances per FLOP: those of the
// Gauss-Newton matrix of ln L at the fitted law, sum over sizes of n_i J_i J_i' / s^2. s is the seeds' pooled sd of
// ln L, or that of the residuals where there are no replicates.
// kInvalidArgument: a budget, cap, form or number of simulations out of range; kNotFound: an unknown architecture;
// kFailedPrecondition: no usable cell, or no law that converged.
common::Result<LawSuggestResult> SuggestForLaws(const records::Table& table, const LawSuggestRequest& request);

common::Json ToJson(const LawSuggestResult& result);

}  // namespace allometry::analysis
