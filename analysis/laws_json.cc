#include "analysis/laws_json.h"

#include "analysis/json_parts.h"
#include "common/table.h"

namespace allometry::analysis {
namespace {

using common::Json;
using common::JsonNumber;

Json RangeJson(const std::optional<Range>& range) {
  if (!range) return nullptr;
  return {{"low", JsonNumber(range->low)}, {"high", JsonNumber(range->high)}};
}

Json CertificateJson(const Certificate& c) {
  return {{"scaled_gradient", JsonNumber(c.scaled_gradient)},
          {"condition", JsonNumber(c.condition)},
          {"starts", c.starts},
          {"starts_at_best", c.starts_at_best},
          {"spread", JsonNumber(c.spread)},
          {"distance_from_start", JsonNumber(c.distance_from_start)},
          {"active_bounds", c.active_bounds},
          {"outlier_share", OrNull(c.outlier_share)},
          {"failures", c.failures},
          {"notes", c.notes}};
}

Json FitJson(const LawFit& fit) {
  Json estimates = Json::array();
  for (const LawEstimate& e : fit.estimates) {
    const bool bootstrapped = e.interval.has_value();
    estimates.push_back({{"name", e.name},
                         {"value", JsonNumber(e.value)},
                         {"interval", RangeJson(e.interval)},
                         {"standard_error", bootstrapped ? JsonNumber(e.standard_error) : Json(nullptr)}});
  }
  return {{"method", LawMethodName(fit.method)},
          {"status", fit.converged() ? "converged" : "not converged"},
          {"estimates", estimates},
          {"objective", JsonNumber(fit.objective)},
          {"failed_replicates", fit.failed_replicates},
          {"certificate", CertificateJson(fit.certificate)}};
}

Json CurveJson(const IsoFlopCurve& curve) {
  return {{"flops", JsonNumber(curve.flops)},
          {"points", curve.points},
          {"curvature", JsonNumber(curve.curvature)},
          {"parameters", OrNull(curve.parameters)},
          {"tokens", OrNull(curve.tokens)},
          {"loss", OrNull(curve.loss)},
          {"log_standard_error", JsonNumber(curve.log_standard_error)},
          {"refused", curve.refused}};
}

Json RowJson(const LawBacktestRow& row) {
  Json json = {{"form", LawFormName(row.form)},
               {"method", LawMethodName(row.method)},
               {"fitted", row.fitted},
               {"held_out", row.held_out},
               {"refused", row.refused}};
  if (!row.refused.empty()) return json;
  json["status"] = row.failures.empty() ? "converged" : "not converged";
  json["failures"] = row.failures;
  json["mean_error"] = JsonNumber(row.mean_error);
  json["rms_error"] = JsonNumber(row.rms_error);
  json["largest_error"] = JsonNumber(row.largest_error);
  json["predicted"] = Json::array();
  for (double value : row.predicted) json["predicted"].push_back(JsonNumber(value));
  return json;
}

}  // namespace

common::Json ToJson(const LawResult& result) {
  Json json = {{"form", LawFormName(result.form)},
               {"confidence", result.options.confidence},
               {"replicates", result.options.replicates},
               {"seed", result.options.seed},
               {"delta", result.options.delta},
               {"points", result.points},
               {"fits", Json::array()},
               {"disagreement", Json::array()}};
  for (const LawFit& fit : result.fits) json["fits"].push_back(FitJson(fit));
  for (const LawDisagreement& d : result.disagreement)
    json["disagreement"].push_back(
        {{"name", d.name}, {"difference", JsonNumber(d.difference)}, {"interval", RangeJson(d.interval)}});
  return json;
}

common::Json ToJson(const AllocationResult& result) {
  const auto with_interval = [](double value, const std::optional<Range>& interval) {
    return Json{{"value", JsonNumber(value)}, {"interval", RangeJson(interval)}};
  };
  return {{"flops", JsonNumber(result.flops)},
          {"parameters", with_interval(result.at.parameters, result.parameters)},
          {"tokens", with_interval(result.at.tokens, result.tokens)},
          {"loss", with_interval(result.at.loss, result.loss)},
          {"exponent", with_interval(result.at.exponent, result.exponent)}};
}

common::Json ToJson(const IsoFlopResult& result) {
  Json json = {{"curves", Json::array()},
               {"exponent", OrNull(result.exponent)},
               {"intercept", OrNull(result.intercept)},
               {"exponent_standard_error", OrNull(result.exponent_standard_error)}};
  for (const IsoFlopCurve& curve : result.curves) json["curves"].push_back(CurveJson(curve));
  return json;
}

common::Json ToJson(const LawBacktestResult& result) {
  Json json = {{"cut", JsonNumber(result.cut)}, {"rows", Json::array()}};
  for (const LawBacktestRow& row : result.rows) json["rows"].push_back(RowJson(row));
  return json;
}

}  // namespace allometry::analysis
