#include "report/score_tables.h"

#include <algorithm>
#include <map>

#include "analysis/benchmarks.h"
#include "report/sections.h"

namespace allometry::report {
namespace {

using analysis::ScoreColumn;
using analysis::ScoredRow;
using analysis::ScoresResult;
using analysis::ScoreValue;
using common::ColumnKind;

// Which columns of the scores a table shows.
struct ScoreGroup {
  const char* name;
  const char* title;
  std::vector<size_t> columns = {};
};

bool IsOf(std::span<const analysis::BenchmarkTask> tasks, const std::string& name) {
  return std::ranges::find(tasks, name, &analysis::BenchmarkTask::name) != tasks.end();
}

std::vector<ScoreGroup> GroupsOf(const ScoresResult& scores) {
  std::vector<ScoreGroup> groups = {{"scores_averages", "averages"},
                                    {"scores_glue", "GLUE"},
                                    {"scores_superglue", "SuperGLUE"},
                                    {"scores_other", "other tasks"}};
  const bool squad_average = std::ranges::any_of(
      scores.columns, [](const ScoreColumn& column) { return column.average && column.name == "squad"; });
  for (size_t c = 0; c < scores.columns.size(); ++c) {
    const ScoreColumn& column = scores.columns[c];
    const bool squad = !column.average && IsOf(analysis::SquadTasks(), column.name);
    if (squad && squad_average) continue;  // the same number
    size_t group = 3;
    if (column.average)
      group = 0;
    else if (IsOf(analysis::GlueTasks(), column.name))
      group = 1;
    else if (IsOf(analysis::SuperGlueTasks(), column.name))
      group = 2;
    groups[group].columns.push_back(c);
  }
  std::erase_if(groups, [](const ScoreGroup& group) { return group.columns.empty(); });
  return groups;
}

// Tasks without their benchmark's prefix, which the table's title says.
std::string TitleOf(const ScoreColumn& column) {
  static const std::map<std::string, std::string> kAverages = {{"glue", "GLUE"},
                                                               {"superglue", "SuperGLUE"},
                                                               {"squad", "SQuAD"},
                                                               {"downstream", "D"},
                                                               {"tasks", "mean of tasks"}};
  if (column.average) return kAverages.at(column.name);
  for (const std::string prefix : {"glue_", "superglue_"})
    if (column.name.starts_with(prefix)) return column.name.substr(prefix.size());
  return column.name;
}

common::TableValue TextOf(const ScoreValue& score) {
  if (!score.value) return {};
  std::string text = Format("%.1f", 100 * *score.value);
  if (score.spread) text += Format(" ±%.1f", 100 * *score.spread);
  return text + (score.at_chance ? "*" : "") + (score.selected_on_test ? "!" : "");
}

template <typename Holds>
bool AnyScore(const ScoresResult& scores, const ScoreGroup& group, Holds holds) {
  return std::ranges::any_of(scores.rows, [&](const ScoredRow& row) {
    return std::ranges::any_of(group.columns, [&](size_t c) { return holds(row.scores[c]); });
  });
}

std::vector<std::string> NotesOf(const ScoresResult& scores, const ScoreGroup& group) {
  std::vector<std::string> notes;
  if (AnyScore(scores, group, [](const ScoreValue& s) { return s.spread.has_value(); }))
    notes.emplace_back("± is the standard deviation between seeds.");
  if (AnyScore(scores, group, [](const ScoreValue& s) { return s.at_chance; }))
    notes.emplace_back("* at chance: no better than the most frequent answer; an average, if all of its tasks are.");
  if (AnyScore(scores, group, [](const ScoreValue& s) { return s.selected_on_test; }))
    notes.emplace_back("! the checkpoint was selected on the examples that are scored.");
  return notes;
}

TitledTable TableOf(const ScoresResult& scores, const ScoreGroup& group) {
  common::Table table{.name = group.name, .columns = {}, .rows = {}, .notes = NotesOf(scores, group)};
  table.columns = {{"architecture", "", "", ColumnKind::kText}, {"size", "", "", ColumnKind::kText}};
  for (const size_t c : group.columns) {
    const ScoreColumn& column = scores.columns[c];
    table.columns.push_back(
        {column.average ? column.name + "_average" : column.name, TitleOf(column), "%", ColumnKind::kText});
  }
  for (const ScoredRow& row : scores.rows) {
    auto& values = table.rows.emplace_back();
    values.emplace_back(row.architecture);
    values.emplace_back(row.size);
    for (const size_t c : group.columns) values.push_back(TextOf(row.scores[c]));
  }
  return {std::string("Table 1, continued: ") + group.title + ", %", std::move(table)};
}

}  // namespace

std::vector<TitledTable> ScoreTables(const ScoresResult& scores) {
  std::vector<TitledTable> tables;
  for (const ScoreGroup& group : GroupsOf(scores)) tables.push_back(TableOf(scores, group));
  if (!tables.empty() && !scores.downstream.note.empty())
    tables.front().table.notes.push_back("D: " + scores.downstream.note);
  return tables;
}

}  // namespace allometry::report
