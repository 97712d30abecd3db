#include "analysis/law_backtest.h"

#include <algorithm>
#include <cmath>

namespace allometry::analysis {
namespace {

struct Split {
  std::vector<LawPoint> fitted, held_out;
};

// Points as the form takes them: laws of compute see 6 N D as x.
std::vector<LawPoint> PointsOf(LawForm form, std::vector<LawPoint> points) {
  if (PredictsLoss(form) && !HasTokens(form))
    for (LawPoint& point : points) point.x *= 6 * point.tokens;
  return points;
}

LawBacktestRow Row(const LawFit& fit, LawForm form, const Split& split) {
  LawBacktestRow row{
      form, fit.method, split.fitted.size(), split.held_out.size(), 0, 0, 0, {}, fit.certificate.failures, ""};
  const std::vector<double> law = fit.Parameters();
  const auto n = static_cast<double>(split.held_out.size());
  for (const LawPoint& point : split.held_out) {
    row.predicted.push_back(EvaluateLaw(form, law, point.x, point.tokens));
    const double error = (row.predicted.back() - point.y) / point.y;
    row.mean_error += error / n;
    row.rms_error += error * error / n;
    row.largest_error = std::max(row.largest_error, std::abs(error));
  }
  row.rms_error = std::sqrt(row.rms_error);
  return row;
}

void AddRows(LawForm form, const Split& split, LawOptions options, LawBacktestResult* result) {
  options.replicates = 0;
  const Split shaped{PointsOf(form, split.fitted), PointsOf(form, split.held_out)};
  const common::Result<LawResult> fits = FitLaw(form, shaped.fitted, options);
  if (!fits) {
    LawBacktestRow row{form, LawMethod::kProjection, split.fitted.size(), split.held_out.size(), 0, 0, 0, {}, {}, ""};
    row.refused = fits.error().message;
    result->rows.push_back(row);
    return;
  }
  for (const LawFit& fit : fits->fits) result->rows.push_back(Row(fit, form, shaped));
}

common::Result<LawBacktestResult> Test(std::span<const LawForm> forms, const Split& split, double cut,
                                       const LawOptions& options) {
  if (split.fitted.empty() || split.held_out.empty())
    return common::InvalidArgument("the cut leaves no point " +
                                   std::string(split.fitted.empty() ? "to fit" : "to predict"));
  LawBacktestResult result{cut, {}};
  for (LawForm form : forms) AddRows(form, split, options, &result);
  return result;
}

common::Status CheckForms(std::span<const LawForm> forms, bool of_loss) {
  for (LawForm form : forms)
    if (PredictsLoss(form) != of_loss)
      return common::InvalidArgument("the law '" + std::string(LawFormName(form)) + "' " +
                                     (of_loss ? "does not predict a loss" : "does not take a loss"));
  return common::Ok();
}

}  // namespace

common::Result<LawBacktestResult> BacktestLaws(std::span<const LawForm> forms, std::span<const LawPoint> points,
                                               double cut, const LawOptions& options) {
  ALLO_RETURN_IF_ERROR(CheckForms(forms, true));
  Split split;
  for (const LawPoint& point : points) {
    if (!(point.x > 0 && point.tokens > 0 && point.y > 0 && std::isfinite(point.x * point.tokens * point.y)))
      return common::InvalidArgument("sizes, tokens and losses must be positive and finite");
    (6 * point.x * point.tokens <= cut ? split.fitted : split.held_out).push_back(point);
  }
  return Test(forms, split, cut, options);
}

common::Result<LawBacktestResult> BacktestScores(std::span<const LawForm> forms, std::span<const LawPoint> points,
                                                 double cut, const LawOptions& options) {
  ALLO_RETURN_IF_ERROR(CheckForms(forms, false));
  Split split;
  for (const LawPoint& point : points) {
    if (!(point.x > 0 && std::isfinite(point.x) && point.y > 0 && point.y <= 1))
      return common::InvalidArgument("losses must be positive and finite, and scores above 0 and at most 1");
    (point.x >= cut ? split.fitted : split.held_out).push_back(point);
  }
  return Test(forms, split, cut, options);
}

}  // namespace allometry::analysis
