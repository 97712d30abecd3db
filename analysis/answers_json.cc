#include "analysis/answers_json.h"

#include "analysis/json_parts.h"
#include "analysis/law_forms.h"
#include "common/table.h"

namespace allometry::analysis {
namespace {

using common::Json;
using common::JsonNumber;

template <typename T>
Json ValueOrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

// What all results over slopes say first.
Json SlopesRequestJson(const SlopesRequest& request, const Downstream& downstream) {
  return {{"transform", TransformName(request.transform)},
          {"flops", FlopConventionName(request.flops)},
          {"parameters", ParameterConventionName(request.parameters)},
          {"confidence", request.confidence},
          {"filter", request.filter},
          {"tasks", downstream.parts},
          {"downstream", DownstreamJson(downstream)}};
}

// An x on the slope's axis, and as FLOPs, parameters, seconds or U.
struct XWriter {
  AxisPair axes;
  Transform transform;

  Json operator()(const std::optional<double>& x) const {
    if (!x) return nullptr;
    return {{"x", JsonNumber(*x)}, {"value", JsonNumber(ValueOfX(*x, axes.x, transform))}};
  }
};

// {"E", "A", "alpha"}.
Json LawJson(const std::vector<double>& parameters) {
  Json json = Json::object();
  for (size_t i = 0; i < parameters.size(); ++i)
    json[LawParameterNames(LawForm::kCompute)[i]] = JsonNumber(parameters[i]);
  return json;
}

Json CrossoverJson(const Crossover& c, const XWriter& write) {
  Json at = Json::array(), bands = Json::array(), range = nullptr;
  for (const double x : c.at) at.push_back(write(x));
  for (const CrossoverBand& band : c.bands) bands.push_back({{"low", write(band.low)}, {"high", write(band.high)}});
  Json laws = nullptr;
  if (c.laws) laws = {{"first", LawJson(c.laws->first)}, {"second", LawJson(c.laws->second)}};
  if (c.common_range) range = {{"low", write(c.common_range->first)}, {"high", write(c.common_range->second)}};
  return {{"first", c.first},
          {"second", c.second},
          {"verdict", c.verdict},
          {"reason", c.reason},
          {"curved", c.curved},
          {"basis", VarianceBasisName(c.basis)},
          {"at", at},
          {"bands", bands},
          {"common_range", range},
          {"ahead_below", c.ahead_below},
          {"ahead_above", c.ahead_above},
          {"laws", laws}};
}

Json SizeRankingJson(const SizeRanking& size) {
  Json ranking = Json::array();
  for (const RankedArchitecture& r : size.ranking) {
    ranking.push_back({{"architecture", r.architecture},
                       {"quality", JsonNumber(r.quality)},
                       {"seeds", r.seeds},
                       {"at_chance", r.at_chance},
                       {"rank", r.rank},
                       {"probability_best", OrNull(r.probability_best)},
                       {"rank_low", ValueOrNull(r.rank_low)},
                       {"rank_high", ValueOrNull(r.rank_high)}});
  }
  return {{"size", size.size}, {"ranking", ranking}};
}

Json AgreementJson(const RankAgreement& a) {
  return {{"first", a.first},     {"second", a.second},   {"architectures", a.architectures},
          {"tau", OrNull(a.tau)}, {"low", OrNull(a.low)}, {"high", OrNull(a.high)},
          {"reason", a.reason}};
}

Json SuggestedSlopeJson(const SuggestedSlope& s) {
  return {{"architecture", s.architecture},
          {"alpha", OrNull(s.alpha)},
          {"half_width_now", OrNull(s.half_now)},
          {"half_width_after", OrNull(s.half_after)},
          {"refused", s.refused}};
}

Json SuggestedSizeJson(const SuggestedSize& s, const XWriter& write) {
  return {{"architecture", s.architecture},
          {"at", write(s.x)},
          {"flops", JsonNumber(s.flops)},
          {"affordable", s.affordable},
          {"line_half_width_now", JsonNumber(s.line_half_now)},
          {"line_half_width_after", JsonNumber(s.line_half_after)}};
}

Json BacktestRowJson(const BacktestRow& r) {
  return {{"form", r.form},
          {"architecture", r.architecture},
          {"x", AxisName(r.axes.x)},
          {"y", AxisName(r.axes.y)},
          {"size", r.size},
          {"fitted_sizes", r.fitted_sizes},
          {"at", JsonNumber(r.x)},
          {"largest_fitted", JsonNumber(r.largest_fitted_x)},
          {"forecast", OrNull(r.forecast)},
          {"measured", OrNull(r.measured)},
          {"error", OrNull(r.error)},
          {"forecast_value", OrNull(r.forecast_value)},
          {"measured_value", OrNull(r.measured_value)},
          {"relative_error", OrNull(r.relative_error)},
          {"seed_interval", IntervalJson(r.seed_interval)},
          {"line_interval", IntervalJson(r.line_interval)},
          {"in_seed_interval", ValueOrNull(r.in_seed_interval)},
          {"in_line_interval", ValueOrNull(r.in_line_interval)},
          {"refused", r.refused}};
}

Json BacktestSummaryJson(const BacktestSummary& s) {
  return {{"form", s.form},
          {"x", AxisName(s.axes.x)},
          {"y", AxisName(s.axes.y)},
          {"asked", s.asked},
          {"refused", s.refused},
          {"median_absolute_error", OrNull(s.median_absolute_error)},
          {"largest_absolute_error", OrNull(s.largest_absolute_error)},
          {"mean_error", OrNull(s.mean_error)},
          {"median_absolute_relative_error", OrNull(s.median_absolute_relative_error)},
          {"with_seed_interval", s.with_seed_interval},
          {"in_seed_interval", s.in_seed_interval},
          {"with_line_interval", s.with_line_interval},
          {"in_line_interval", s.in_line_interval}};
}

}  // namespace

common::Json ToJson(const CrossoversResult& result) {
  const CrossoversRequest& request = result.request;
  const XWriter write{request.axes, request.slopes.transform};
  Json json = SlopesRequestJson(request.slopes, result.downstream);
  json["x"] = AxisName(request.axes.x);
  json["y"] = AxisName(request.axes.y);
  json["crossovers"] = Json::array();
  for (const Crossover& c : result.crossovers) json["crossovers"].push_back(CrossoverJson(c, write));
  json["left_out"] = LeftOutJson(result.left_out);
  return json;
}

common::Json ToJson(const RankResult& result) {
  Json json = {{"quality", result.request.quality},
               {"filter", result.request.filter},
               {"tasks", result.downstream.parts},
               {"downstream", DownstreamJson(result.downstream)},
               {"confidence", result.request.confidence},
               {"seed", result.request.seed},
               {"draws", result.request.draws},
               {"seed_sd", OrNull(result.seed_sd)},
               {"degrees_of_freedom", JsonNumber(result.degrees_of_freedom)},
               {"no_probability", result.no_probability},
               {"sizes", Json::array()},
               {"agreements", Json::array()},
               {"left_out", LeftOutJson(result.left_out)}};
  for (const SizeRanking& size : result.sizes) json["sizes"].push_back(SizeRankingJson(size));
  for (const RankAgreement& a : result.agreements) json["agreements"].push_back(AgreementJson(a));
  return json;
}

common::Json ToJson(const SuggestResult& result) {
  const SuggestRequest& request = result.request;
  const XWriter write{request.axes, request.slopes.transform};
  Json json = SlopesRequestJson(request.slopes, result.downstream);
  json["x"] = AxisName(request.axes.x);
  json["y"] = AxisName(request.axes.y);
  json["budget_flops"] = JsonNumber(request.budget_flops);
  json["cap"] = request.cap;
  json["delta"] = OrNull(request.delta);
  json["total_flops"] = JsonNumber(result.flops);
  json["seed_sd"] = OrNull(result.seed_sd);
  json["notes"] = result.notes;
  for (const char* list : {"cells", "slopes", "new_sizes", "power"}) json[list] = Json::array();
  for (const SuggestedCell& c : result.cells)
    json["cells"].push_back(
        {{"architecture", c.architecture}, {"size", c.size}, {"seed", c.seed}, {"flops", JsonNumber(c.flops)}});
  for (const SuggestedSlope& s : result.slopes) json["slopes"].push_back(SuggestedSlopeJson(s));
  for (const SuggestedSize& s : result.new_sizes) json["new_sizes"].push_back(SuggestedSizeJson(s, write));
  for (const PowerRow& row : result.power)
    json["power"].push_back({{"sizes", row.sizes},
                             {"seeds", ValueOrNull(row.seeds)},
                             {"smallest_difference", JsonNumber(row.smallest_difference)}});
  json["left_out"] = LeftOutJson(result.left_out);
  return json;
}

common::Json ToJson(const BacktestResult& result) {
  Json json = SlopesRequestJson(result.request.slopes, result.downstream);
  json["rows"] = Json::array();
  json["summaries"] = Json::array();
  for (const BacktestRow& row : result.rows) json["rows"].push_back(BacktestRowJson(row));
  for (const BacktestSummary& s : result.summaries) json["summaries"].push_back(BacktestSummaryJson(s));
  json["left_out"] = LeftOutJson(result.left_out);
  return json;
}

}  // namespace allometry::analysis
