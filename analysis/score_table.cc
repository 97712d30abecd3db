#include "analysis/score_table.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "analysis/mean.h"

namespace allometry::analysis {
namespace {

constexpr const char* kDownstream = "downstream";

std::optional<double> Unparsed(const records::Score& score) {
  if (score.examples <= 0) return std::nullopt;
  return static_cast<double>(score.unparsed) / static_cast<double>(score.examples);
}

ScoreValue OfTask(const records::TaskScores& scores, const std::string& task) {
  const auto found = scores.find(task);
  if (found == scores.end() || !std::isfinite(found->second.value)) return {};
  const records::Score& score = found->second;
  return {.value = score.value,
          .standard_error = score.standard_error,
          .seeds = 1,
          .examples = score.examples,
          .unparsed = Unparsed(score),
          .tasks = 1,
          .tasks_at_chance = score.at_chance ? 1 : 0,
          .at_chance = score.at_chance,
          .selected_on_test = score.selected_on_test,
          .decoding = score.decoding,
          .split = score.split};
}

ScoreValue OfAverage(const Average& average) {
  if (!average.value) return {};
  return {.value = average.value,
          .standard_error = average.standard_error,
          .seeds = 1,
          .tasks = average.tasks,
          .tasks_at_chance = average.at_chance,
          .at_chance = average.AtChance(),
          .selected_on_test = average.selected_on_test};
}

// The averages of a cell by the names of their columns, in the columns' order.
std::vector<std::pair<std::string, Average>> AveragesOf(const records::TaskScores& scores, const Downstream& downstream,
                                                        const AverageOptions& options) {
  const BenchmarkAverages averages = AverageScores(scores, options);
  return {{"glue", averages.glue},
          {"superglue", averages.superglue},
          {"squad", averages.squad},
          {kDownstream, MeanOfParts(scores, downstream.parts, options)},
          {"tasks", averages.tasks}};
}

std::vector<ScoreColumn> ColumnsOf(const std::vector<const records::Record*>& cells, const Downstream& downstream,
                                   const AverageOptions& options) {
  std::set<std::pair<int, std::string>> tasks;
  std::set<std::string> averages;
  for (const records::Record* cell : cells) {
    for (const auto& [task, score] : cell->scores) tasks.emplace(TaskOrder(task), task);
    for (const auto& [name, average] : AveragesOf(cell->scores, downstream, options))
      if (average.value) averages.insert(name);
  }
  std::vector<ScoreColumn> columns;
  for (const auto& [order, task] : tasks) columns.push_back({task, false});
  for (const auto& [name, average] : AveragesOf({}, downstream, options))
    if (averages.contains(name)) columns.push_back({name, true});
  return columns;
}

std::vector<ScoreValue> ValuesOf(const records::Record& cell, const std::vector<ScoreColumn>& columns,
                                 const Downstream& downstream, const AverageOptions& options, LeftOutList* left_out) {
  const auto averages = AveragesOf(cell.scores, downstream, options);
  std::vector<ScoreValue> values;
  for (const ScoreColumn& column : columns) {
    if (!column.average) {
      values.push_back(OfTask(cell.scores, column.name));
      continue;
    }
    const Average& average = std::ranges::find(averages, column.name, &std::pair<std::string, Average>::first)->second;
    if (!average.value) left_out->Add(cell, column.name, WhyNoScore(cell, average.missing));
    values.push_back(OfAverage(average));
  }
  return values;
}

// One column's mean over the seeds that have it.
ScoreValue MeanOverSeeds(const std::vector<ScoredRow>& seeds, size_t column) {
  ScoreValue mean;
  std::vector<double> values, unparsed;
  for (const ScoredRow& seed : seeds) {
    const ScoreValue& score = seed.scores[column];
    if (!score.value) continue;
    if (values.empty()) mean = score;
    values.push_back(*score.value);
    if (score.unparsed) unparsed.push_back(*score.unparsed);
    mean.tasks_at_chance = std::max(mean.tasks_at_chance, score.tasks_at_chance);
    mean.at_chance |= score.at_chance;
    mean.selected_on_test |= score.selected_on_test;
  }
  if (values.empty()) return mean;
  mean.value = Mean(values);
  mean.spread = SampleSd(values);
  mean.standard_error.reset();
  mean.seeds = static_cast<int>(values.size());
  if (!unparsed.empty()) mean.unparsed = Mean(unparsed);
  return mean;
}

ScoredRow MeanRow(const CellGroup& group, const std::vector<ScoredRow>& seeds, size_t columns) {
  ScoredRow row{group.architecture + "-" + group.size, group.architecture, group.size, std::nullopt, {}};
  for (size_t c = 0; c < columns; ++c) row.scores.push_back(MeanOverSeeds(seeds, c));
  return row;
}

// The cells that have scores; the others are left out.
std::vector<const records::Record*> ScoredCells(const Selection& selection, LeftOutList* left_out) {
  std::vector<const records::Record*> cells;
  for (const CellGroup& group : selection.groups) {
    for (const records::Record* cell : group.cells) {
      if (cell->scores.empty())
        left_out->Add(*cell, "all", WhyNoScore(*cell, {"any task"}));
      else
        cells.push_back(cell);
    }
  }
  return cells;
}

}  // namespace

common::Result<ScoresResult> Scores(const records::Table& table, const ScoresRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const RequestedCells cells, FilteredCells(table, request.filter, request.exclude));
  ALLO_ASSIGN_OR_RETURN(Selection selection, SelectCells(cells, {}));
  LeftOutList left_out(selection.left_out);
  const std::vector<const records::Record*> scored = ScoredCells(selection, &left_out);
  selection.left_out = left_out.entries();
  if (scored.empty()) return NoCells(selection);
  ScoresResult result{.columns = ColumnsOf(scored, selection.downstream, request.averages),
                      .rows = {},
                      .downstream = selection.downstream,
                      .left_out = {}};
  for (const CellGroup& group : selection.groups) {
    std::vector<ScoredRow> seeds;
    for (const records::Record* cell : group.cells) {
      if (cell->scores.empty()) continue;
      seeds.push_back({cell->cell, group.architecture, group.size, cell->seed,
                       ValuesOf(*cell, result.columns, selection.downstream, request.averages, &left_out)});
    }
    if (request.mean_over_seeds && !seeds.empty()) seeds = {MeanRow(group, seeds, result.columns.size())};
    result.rows.insert(result.rows.end(), seeds.begin(), seeds.end());
  }
  result.left_out = left_out.entries();
  return result;
}

}  // namespace allometry::analysis
