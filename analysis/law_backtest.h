#pragma once

#include <span>
#include <string>
#include <vector>

#include "analysis/laws.h"

namespace allometry::analysis {

// One form and method, fitted to the smaller points and asked for the largest.
struct LawBacktestRow {
  LawForm form = LawForm::kParametersTokens;
  LawMethod method = LawMethod::kHuber;
  size_t fitted = 0, held_out = 0;
  // Of (predicted - measured) / measured over the held-out points: mean, root of the mean square, largest size.
  double mean_error = 0, rms_error = 0, largest_error = 0;
  std::vector<double> predicted;      // one a held-out point, in their order
  std::vector<std::string> failures;  // of the fit's certificate: empty if it converged
  std::string refused;                // why there is no fit; the numbers are then 0
};

struct LawBacktestResult {
  double cut = 0;  // what is larger was held out
  std::vector<LawBacktestRow> rows;
};

// Fits every form to the points up to `cut`, and predicts the others. Points are (N, D, loss), and the size of one is
// its compute 6 N D, which is also the x of kCompute and kBroken. No bootstrap, so the methods' agreement is not
// part of the certificates. kInvalidArgument: a form that does not predict loss, nothing at all on one side of the cut,
// or a size, token count or loss that is not positive.
common::Result<LawBacktestResult> BacktestLaws(std::span<const LawForm> forms, std::span<const LawPoint> points,
                                               double cut, const LawOptions& options);

// The same for a law of scores by loss (kSigmoid, kExponential), x the loss: fitted to the losses from `cut` up, asked
// for the lower ones.
common::Result<LawBacktestResult> BacktestScores(std::span<const LawForm> forms, std::span<const LawPoint> points,
                                                 double cut, const LawOptions& options);

}  // namespace allometry::analysis
