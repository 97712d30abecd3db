#include "analysis/json_parts.h"
#include "analysis/tables.h"

namespace allometry::analysis {
namespace {

using common::Json;
using common::JsonNumber;

Json PointsJson(const Slope& slope) {
  Json list = Json::array();
  for (const SizePoint& point : slope.points) {
    list.push_back({{"size", point.size},
                    {"x", JsonNumber(point.x)},
                    {"y", JsonNumber(point.y)},
                    {"y_sd", OrNull(point.y_sd)},
                    {"seeds", point.seeds}});
  }
  return list;
}

Json SlopeJson(const Slope& slope) {
  const SlopeEstimate& e = slope.estimate;
  return {{"x", AxisName(slope.x)},
          {"y", slope.task.empty() ? AxisName(slope.y) : slope.task},
          {"alpha", OrNull(e.alpha)},
          {"seed_interval", IntervalJson(e.seed_interval)},
          {"line_interval", IntervalJson(e.line_interval)},
          {"flags", e.flags},
          {"refused", e.refused},
          {"sizes", slope.points.size()},
          {"cells", slope.cells},
          {"points", PointsJson(slope)},
          {"at_chance_cells", slope.at_chance_cells}};
}

Json ArchitecturesJson(const std::vector<ArchitectureSlopes>& architectures) {
  Json list = Json::array();
  for (const ArchitectureSlopes& architecture : architectures) {
    Json slopes = Json::array();
    for (const Slope& slope : architecture.slopes) slopes.push_back(SlopeJson(slope));
    list.push_back({{"architecture", architecture.architecture}, {"slopes", slopes}});
  }
  return list;
}

Json SharedCurvatureJson(const std::optional<SharedCurvature>& shared) {
  if (!shared) return nullptr;
  if (!shared->refused.empty()) return {{"refused", shared->refused}};
  return {{"at", JsonNumber(shared->at)},
          {"first", JsonNumber(shared->first)},
          {"second", JsonNumber(shared->second)},
          {"bend", JsonNumber(shared->bend)},
          {"difference_interval", IntervalJson(shared->difference_interval)},
          {"p_value", shared->difference_interval ? JsonNumber(shared->p_value) : Json(nullptr)},
          {"refused", ""}};
}

Json ComparisonJson(const SlopeComparison& c) {
  return {{"x", AxisName(c.x)},
          {"y", c.task.empty() ? AxisName(c.y) : c.task},
          {"first", c.first},
          {"second", c.second},
          {"difference", OrNull(c.difference)},
          {"seed_interval", IntervalJson(c.seed_interval)},
          {"line_interval", IntervalJson(c.line_interval)},
          {"p_seeds", OrNull(c.p_seeds)},
          {"p_line", OrNull(c.p_line)},
          {"p_seeds_holm", OrNull(c.p_seeds_holm)},
          {"p_line_holm", OrNull(c.p_line_holm)},
          {"verdict", c.verdict},
          {"reason", c.reason},
          {"ranges_differ", c.ranges_differ},
          {"shared_curvature", SharedCurvatureJson(c.shared_curvature)}};
}

Json NumbersJson(const std::vector<double>& numbers) {
  Json list = Json::array();
  for (const double number : numbers) list.push_back(JsonNumber(number));
  return list;
}

Json ParetoPointJson(const ParetoPoint& p) {
  Json ranks = nullptr;
  if (!p.rank_probabilities.empty()) ranks = p.rank_probabilities;
  return {{"cell", p.cell},
          {"architecture", p.architecture},
          {"size", p.size},
          {"cost", JsonNumber(p.cost())},
          {"costs", NumbersJson(p.costs)},
          {"quality", JsonNumber(p.quality)},
          {"parameters", OrNull(p.parameters)},
          {"seeds", p.seeds},
          {"on_frontier", p.on_frontier},
          {"at_chance", p.at_chance},
          {"region", p.region},
          {"probability", OrNull(p.probability)},
          {"rank_probabilities", ranks},
          {"hypervolume", JsonNumber(p.hypervolume)}};
}

Json CostsJson(const std::vector<Cost>& costs) {
  Json list = Json::array();
  for (const Cost cost : costs) list.push_back({{"cost", CostName(cost)}, {"unit", CostUnit(cost)}});
  return list;
}

Json RegionJson(const ParetoRegion& region) {
  Json best = Json::array();
  for (const RegionBest& entry : region.best)
    best.push_back({{"architecture", entry.architecture}, {"probability", entry.probability}});
  return {{"low", JsonNumber(region.low)}, {"high", JsonNumber(region.high)}, {"cells", region.cells}, {"best", best}};
}

}  // namespace

common::Json ToJson(const SlopesResult& result) {
  Json json = {{"transform", TransformName(result.request.transform)},
               {"flops", FlopConventionName(result.request.flops)},
               {"parameters", ParameterConventionName(result.request.parameters)},
               {"confidence", result.request.confidence},
               {"baseline", result.request.baseline},
               {"filter", result.request.filter},
               {"tasks", result.downstream.parts},
               {"downstream", DownstreamJson(result.downstream)},
               {"reference", result.reference},
               {"architectures", ArchitecturesJson(result.architectures)},
               {"comparisons", Json::array()},
               {"per_task", Json::array()},
               {"task_comparisons", Json::array()},
               {"left_out", LeftOutJson(result.left_out)}};
  for (const SlopeComparison& c : result.comparisons) json["comparisons"].push_back(ComparisonJson(c));
  for (const TaskSlopes& task : result.tasks)
    json["per_task"].push_back({{"task", task.task}, {"architectures", ArchitecturesJson(task.architectures)}});
  for (const SlopeComparison& c : result.task_comparisons) json["task_comparisons"].push_back(ComparisonJson(c));
  return json;
}

common::Json ToJson(const ParetoResult& result) {
  const Cost first_cost = result.request.costs.front();
  Json json = {{"cost", CostName(first_cost)},
               {"cost_unit", CostUnit(first_cost)},
               {"costs", CostsJson(result.request.costs)},
               {"quality", result.request.quality},
               {"flops", FlopConventionName(result.request.flops)},
               {"filter", result.request.filter},
               {"tasks", result.downstream.parts},
               {"downstream", DownstreamJson(result.downstream)},
               {"seed", result.request.seed},
               {"draws", result.request.draws},
               {"seed_sd", OrNull(result.seed_sd)},
               {"degrees_of_freedom", JsonNumber(result.degrees_of_freedom)},
               {"no_probability", result.no_probability},
               {"hypervolume", OrNull(result.hypervolume)},
               {"hypervolume_reference",
                {{"costs", NumbersJson(result.reference.costs)}, {"quality", JsonNumber(result.reference.quality)}}},
               {"no_hypervolume", result.no_hypervolume},
               {"points", Json::array()},
               {"regions", Json::array()},
               {"left_out", LeftOutJson(result.left_out)}};
  for (const ParetoPoint& point : result.points) json["points"].push_back(ParetoPointJson(point));
  for (const ParetoRegion& region : result.regions) json["regions"].push_back(RegionJson(region));
  return json;
}

}  // namespace allometry::analysis
