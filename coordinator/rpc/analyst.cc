#include "coordinator/rpc/analyst.h"

#include "analysis/answers_json.h"
#include "analysis/crossover.h"
#include "analysis/pareto.h"
#include "analysis/rank.h"
#include "analysis/score_table.h"
#include "analysis/slopes.h"
#include "analysis/tables.h"
#include "coordinator/rpc/analysis_messages.h"
#include "records/curves.h"
#include "report/report.h"

namespace allometry::coordinator {
namespace {

using common::Result;

void Fill(const std::optional<analysis::Interval>& interval, v1::Interval* out) {
  out->set_known(interval.has_value());
  if (!interval) return;
  out->set_low(interval->low);
  out->set_high(interval->high);
  out->set_degrees_of_freedom(interval->degrees_of_freedom);
}

void Fill(const analysis::Slope& slope, v1::Slope* out) {
  out->set_x(analysis::AxisName(slope.x));
  out->set_y(slope.task.empty() ? analysis::AxisName(slope.y) : slope.task);
  out->set_known(slope.estimate.alpha.has_value());
  out->set_alpha(slope.estimate.alpha.value_or(0));
  Fill(slope.estimate.seed_interval, out->mutable_seed_interval());
  Fill(slope.estimate.line_interval, out->mutable_line_interval());
  for (const std::string& flag : slope.estimate.flags) out->add_flags(flag);
  out->set_refused(slope.estimate.refused);
  out->set_sizes(static_cast<int>(slope.points.size()));
  out->set_cells(slope.cells);
}

void Fill(const analysis::SlopeComparison& comparison, v1::SlopeComparison* out) {
  out->set_x(analysis::AxisName(comparison.x));
  out->set_y(comparison.task.empty() ? analysis::AxisName(comparison.y) : comparison.task);
  out->set_first(comparison.first);
  out->set_second(comparison.second);
  if (comparison.difference) out->set_difference(*comparison.difference);
  Fill(comparison.seed_interval, out->mutable_seed_interval());
  Fill(comparison.line_interval, out->mutable_line_interval());
  if (comparison.p_seeds_holm) out->set_p_seeds(*comparison.p_seeds_holm);
  if (comparison.p_line_holm) out->set_p_line(*comparison.p_line_holm);
  out->set_verdict(comparison.verdict);
  out->set_reason(comparison.reason);
}

}  // namespace

Result<v1::SlopesResponse> Analyst::Slopes(const v1::SlopesRequest& request) const {
  ALLO_ASSIGN_OR_RETURN(const auto wanted, SlopesRequestOf(request));
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto result, analysis::Slopes(*table, wanted));
  v1::SlopesResponse response;
  for (const auto& architecture : result.architectures) {
    v1::ArchitectureSlopes* out = response.add_architectures();
    out->set_architecture(architecture.architecture);
    for (const auto& slope : architecture.slopes) Fill(slope, out->add_slopes());
  }
  for (const auto& task : result.tasks)
    for (size_t a = 0; a < task.architectures.size(); ++a)
      for (const auto& slope : task.architectures[a].slopes)
        Fill(slope, response.mutable_architectures(static_cast<int>(a))->add_slopes());
  response.set_flops(analysis::FlopConventionName(result.request.flops));
  response.set_parameters(analysis::ParameterConventionName(result.request.parameters));
  response.set_transform(analysis::TransformName(result.request.transform));
  response.set_confidence(result.request.confidence);
  for (const auto& comparison : result.comparisons) Fill(comparison, response.add_comparisons());
  for (const auto& comparison : result.task_comparisons) Fill(comparison, response.add_comparisons());
  FillDownstream(result.downstream, response.mutable_downstream());
  FillLeftOut(result.left_out, &response);
  response.set_json(analysis::ToJson(result).dump());
  return response;
}

namespace {

Result<analysis::ParetoRequest> RequestOf(const v1::ParetoRequest& request) {
  analysis::ParetoRequest out;
  out.filter = request.filter();
  out.exclude = ToVector(request.exclude());
  out.costs.clear();
  ALLO_ASSIGN_OR_RETURN(const analysis::Cost first, analysis::ParseCost(request.cost()));
  out.costs.push_back(first);
  for (const std::string& name : request.more_costs()) {
    ALLO_ASSIGN_OR_RETURN(const analysis::Cost cost, analysis::ParseCost(name));
    out.costs.push_back(cost);
  }
  if (!request.quality().empty()) out.quality = request.quality();
  ALLO_ASSIGN_OR_RETURN(out.flops, analysis::ParseFlopConvention(request.flops()));
  out.tasks = ToVector(request.tasks());
  out.seed = request.seed();
  if (request.has_sd()) out.sd = request.sd();
  return out;
}

void Fill(const analysis::ParetoPoint& point, v1::ParetoPoint* out) {
  out->set_cell(point.cell);
  out->set_architecture(point.architecture);
  out->set_size(point.size);
  out->set_cost(point.cost());
  for (size_t i = 1; i < point.costs.size(); ++i) out->add_more_costs(point.costs[i]);
  out->set_quality(point.quality);
  out->set_parameters(point.parameters.value_or(0));
  out->set_seeds(static_cast<int>(point.seeds));
  out->set_on_frontier(point.on_frontier);
  out->set_probability_known(point.probability.has_value());
  out->set_probability(point.probability.value_or(0));
}

void Fill(const analysis::ParetoRegion& region, v1::ParetoRegion* out) {
  out->set_low(region.low);
  out->set_high(region.high);
  out->set_cells(region.cells);
  for (const analysis::RegionBest& best : region.best) {
    v1::RegionBest* filled = out->add_best();
    filled->set_architecture(best.architecture);
    filled->set_probability(best.probability);
  }
}

}  // namespace

Result<v1::ParetoResponse> Analyst::Pareto(const v1::ParetoRequest& request) const {
  ALLO_ASSIGN_OR_RETURN(const auto wanted, RequestOf(request));
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto result, analysis::Pareto(*table, wanted));
  v1::ParetoResponse response;
  for (const auto& point : result.points) Fill(point, response.add_points());
  if (result.hypervolume) response.set_hypervolume(*result.hypervolume);
  response.set_no_hypervolume(result.no_hypervolume);
  for (const auto& region : result.regions) Fill(region, response.add_regions());
  FillDownstream(result.downstream, response.mutable_downstream());
  FillLeftOut(result.left_out, &response);
  response.set_json(analysis::ToJson(result).dump());
  return response;
}

namespace {

Result<analysis::SquadValue> SquadValueOf(const std::string& name) {
  if (name.empty() || name == "mean") return analysis::SquadValue::kMean;
  if (name == "exact_match") return analysis::SquadValue::kExactMatch;
  if (name == "f1") return analysis::SquadValue::kF1;
  return common::InvalidArgument("unknown value of SQuAD '" + name + "': use mean, exact_match or f1");
}

Result<analysis::ScoresRequest> RequestOf(const v1::ScoresRequest& request) {
  analysis::ScoresRequest out;
  out.filter = request.filter();
  out.exclude = ToVector(request.exclude());
  if (request.by() != "" && request.by() != "cell" && request.by() != "mean")
    return common::InvalidArgument("unknown rows '" + request.by() + "': use cell or mean");
  out.mean_over_seeds = request.by() == "mean";
  out.averages.with_wnli = request.with_wnli();
  ALLO_ASSIGN_OR_RETURN(out.averages.squad, SquadValueOf(request.squad()));
  return out;
}

void Fill(const analysis::ScoreValue& score, v1::ScoreValue* out) {
  if (score.value) out->set_value(*score.value);
  if (score.spread) out->set_spread(*score.spread);
  if (score.standard_error) out->set_standard_error(*score.standard_error);
  out->set_seeds(score.seeds);
  out->set_examples(score.examples);
  if (score.unparsed) out->set_unparsed(*score.unparsed);
  out->set_tasks(score.tasks);
  out->set_tasks_at_chance(score.tasks_at_chance);
  out->set_at_chance(score.at_chance);
  out->set_selected_on_test(score.selected_on_test);
  out->set_decoding(score.decoding);
  out->set_split(score.split);
}

void Fill(const analysis::ScoredRow& row, v1::ScoredRow* out) {
  out->set_cell(row.cell);
  out->set_architecture(row.architecture);
  out->set_size(row.size);
  if (row.seed) out->set_seed(*row.seed);
  for (const auto& score : row.scores) Fill(score, out->add_scores());
}

}  // namespace

Result<v1::ScoresResponse> Analyst::Scores(const v1::ScoresRequest& request) const {
  ALLO_ASSIGN_OR_RETURN(const auto wanted, RequestOf(request));
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto result, analysis::Scores(*table, wanted));
  v1::ScoresResponse response;
  for (const auto& column : result.columns) {
    v1::ScoreColumn* out = response.add_columns();
    out->set_name(column.name);
    out->set_average(column.average);
  }
  for (const auto& row : result.rows) Fill(row, response.add_rows());
  FillDownstream(result.downstream, response.mutable_downstream());
  FillLeftOut(result.left_out, &response);
  return response;
}

namespace {

Result<analysis::CrossoversRequest> RequestOf(const v1::CrossoversRequest& request) {
  analysis::CrossoversRequest out;
  ALLO_ASSIGN_OR_RETURN(out.slopes, SlopesRequestOf(request.slopes()));
  ALLO_ASSIGN_OR_RETURN(out.axes, analysis::ParseAxisPair(request.axes()));
  out.first = request.first();
  out.second = request.second();
  return out;
}

void Fill(const analysis::Crossover& crossover, const analysis::CrossoversRequest& request, v1::Crossover* out) {
  const auto value = [&](double x) { return analysis::ValueOfX(x, request.axes.x, request.slopes.transform); };
  out->set_first(crossover.first);
  out->set_second(crossover.second);
  out->set_verdict(crossover.verdict);
  out->set_reason(crossover.reason);
  out->set_curved(crossover.curved);
  for (const double x : crossover.at) out->add_at(value(x));
  for (const analysis::CrossoverBand& band : crossover.bands) {
    v1::CrossoverBand* filled = out->add_bands();
    if (band.low) filled->set_low(value(*band.low));
    if (band.high) filled->set_high(value(*band.high));
  }
  out->set_ahead_below(crossover.ahead_below);
  out->set_ahead_above(crossover.ahead_above);
}

}  // namespace

Result<v1::CrossoversResponse> Analyst::Crossovers(const v1::CrossoversRequest& request) const {
  ALLO_ASSIGN_OR_RETURN(const auto wanted, RequestOf(request));
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.slopes().sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto result, analysis::Crossovers(*table, wanted));
  v1::CrossoversResponse response;
  for (const auto& crossover : result.crossovers) Fill(crossover, result.request, response.add_crossovers());
  FillDownstream(result.downstream, response.mutable_downstream());
  FillLeftOut(result.left_out, &response);
  response.set_json(analysis::ToJson(result).dump());
  return response;
}

namespace {

analysis::RankRequest RequestOf(const v1::RanksRequest& request) {
  analysis::RankRequest out;
  out.filter = request.filter();
  out.exclude = ToVector(request.exclude());
  if (!request.quality().empty()) out.quality = request.quality();
  out.tasks = ToVector(request.tasks());
  if (request.has_confidence()) out.confidence = request.confidence();
  out.seed = request.seed();
  if (request.has_sd()) out.sd = request.sd();
  return out;
}

void Fill(const analysis::RankedArchitecture& ranked, v1::RankedArchitecture* out) {
  out->set_architecture(ranked.architecture);
  out->set_quality(ranked.quality);
  out->set_rank(ranked.rank);
  out->set_rank_low(ranked.rank_low.value_or(0));
  out->set_rank_high(ranked.rank_high.value_or(0));
  if (ranked.probability_best) out->set_probability_best(*ranked.probability_best);
  out->set_seeds(static_cast<int>(ranked.seeds));
  out->set_at_chance(ranked.at_chance);
}

void Fill(const analysis::RankAgreement& agreement, v1::RankAgreement* out) {
  out->set_first(agreement.first);
  out->set_second(agreement.second);
  out->set_architectures(agreement.architectures);
  if (agreement.tau) out->set_tau(*agreement.tau);
  if (agreement.low) out->set_low(*agreement.low);
  if (agreement.high) out->set_high(*agreement.high);
  out->set_reason(agreement.reason);
}

}  // namespace

Result<v1::RanksResponse> Analyst::Ranks(const v1::RanksRequest& request) const {
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto result, analysis::Rank(*table, RequestOf(request)));
  v1::RanksResponse response;
  for (const auto& size : result.sizes) {
    v1::SizeRanking* out = response.add_sizes();
    out->set_size(size.size);
    for (const auto& ranked : size.ranking) Fill(ranked, out->add_ranking());
  }
  for (const auto& agreement : result.agreements) Fill(agreement, response.add_agreements());
  response.set_no_probability(result.no_probability);
  FillDownstream(result.downstream, response.mutable_downstream());
  FillLeftOut(result.left_out, &response);
  response.set_json(analysis::ToJson(result).dump());
  return response;
}

Result<v1::ReportResponse> Analyst::Report(const v1::ReportRequest& request) const {
  report::ReportRequest wanted;
  ALLO_ASSIGN_OR_RETURN(wanted.slopes, SlopesRequestOf(request.slopes()));
  wanted.title = request.title();
  wanted.seed = request.seed();
  ALLO_ASSIGN_OR_RETURN(wanted.data_version, DataVersion());
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.slopes().sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto curves, records::LoadCurves(database_, ToVector(request.slopes().sweeps()),
                                                               report::kCurveSeries, report::kCurvePoints));
  ALLO_ASSIGN_OR_RETURN(const report::Report built, report::BuildReport(*table, curves, wanted));
  v1::ReportResponse response;
  response.set_json(report::ToJson(built).dump());
  return response;
}

}  // namespace allometry::coordinator
