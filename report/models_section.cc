#include <algorithm>
#include <cmath>
#include <set>

#include "analysis/mean.h"
#include "analysis/score_table.h"
#include "report/score_tables.h"
#include "report/sections.h"

// Table 1 of Tay et al. 2022: what each model costs and how good it is, and its tasks.
namespace allometry::report {
namespace {

using analysis::CellGroup;
using common::ColumnKind;
using common::TableValue;
using records::Record;

// The mean of what the cells of a group have, and its standard deviation between them.
struct SeedMean {
  std::optional<double> mean, sd;
};

template <typename Value>
SeedMean OverSeeds(const CellGroup& group, const Value& value) {
  std::vector<double> values;
  for (const Record* cell : group.cells)
    if (const std::optional<double> v = value(*cell); v && std::isfinite(*v)) values.push_back(*v);
  if (values.empty()) return {};
  return {analysis::Mean(values), analysis::SampleSd(values)};
}

std::optional<double> StepsPerSecond(const Record& cell) {
  const auto steps = analysis::MetricValue(cell, "steps", true);
  const auto seconds = analysis::MetricValue(cell, "device_seconds", true);
  if (!steps.value || !seconds.value) return std::nullopt;
  return *steps.value / *seconds.value;
}

std::optional<double> Perplexity(const Record& cell) {
  const auto loss = analysis::MetricValue(cell, "validation_loss", false);
  return loss.value ? std::optional(std::exp(*loss.value)) : std::nullopt;
}

std::string FlagsOf(const Study& study, const CellGroup& group) {
  const std::vector<std::string>& parts = study.selection.downstream.parts;
  const bool at_chance =
      std::ranges::any_of(group.cells, [&](const Record* cell) { return analysis::IsAtChance(*cell, parts); });
  std::vector<std::string> flags;
  if (at_chance) flags.emplace_back("at chance");
  if (group.cells.size() == 1) flags.emplace_back("one seed");
  return Joined(flags, ", ");
}

std::set<std::string> AllDevices(const Study& study) {
  std::set<std::string> devices;
  for (const CellGroup& group : study.selection.groups) devices.merge(analysis::DevicesOf(group.cells));
  return devices;
}

std::string DevicesText(const std::set<std::string>& devices) { return Joined({devices.begin(), devices.end()}, ", "); }

void AddColumns(const Study& study, bool several_devices, common::Table* table) {
  const analysis::SlopesRequest& request = study.request.slopes;
  table->columns = {{"architecture", "", "", ColumnKind::kText},
                    {"size", "", "", ColumnKind::kText},
                    {"seeds", "", "", ColumnKind::kInteger},
                    {"parameters", std::string(ParameterConventionName(request.parameters)) + " parameters", "",
                     ColumnKind::kQuantity},
                    {"flops", std::string(FlopConventionName(request.flops)) + " FLOPs", "FLOP", ColumnKind::kQuantity},
                    {"steps_per_second", "steps/s", "1/s", ColumnKind::kNumber, 2},
                    {"perplexity", "", "", ColumnKind::kNumber, 2},
                    {"perplexity_sd", "±", "", ColumnKind::kNumber, 2}};
  if (study.has_scores) {
    table->columns.push_back({"downstream", "D, %", "%", ColumnKind::kNumber, 1});
    table->columns.push_back({"downstream_sd", "±", "%", ColumnKind::kNumber, 1});
  }
  if (several_devices) table->columns.push_back({"devices", "", "", ColumnKind::kText});
  table->columns.push_back({"flags", "", "", ColumnKind::kText});
}

std::optional<double> Percent(const std::optional<double>& fraction) {
  return fraction ? std::optional(100 * *fraction) : std::nullopt;
}

std::vector<TableValue> RowOf(const Study& study, const CellGroup& group, bool several_devices) {
  const analysis::SlopesRequest& request = study.request.slopes;
  const analysis::MeasureOptions options{.tasks = study.selection.downstream.parts};
  const auto metric = [&](const char* name) {
    return OverSeeds(group, [&](const Record& cell) { return analysis::MetricValue(cell, name, true).value; }).mean;
  };
  const SeedMean perplexity = OverSeeds(group, Perplexity);
  const SeedMean downstream =
      OverSeeds(group, [&](const Record& cell) { return AxisValue(cell, analysis::Axis::kDownstream, options).value; });
  std::vector<TableValue> row = {group.architecture,
                                 group.size,
                                 static_cast<int64_t>(group.cells.size()),
                                 OrNothing(metric(MetricOf(request.parameters))),
                                 OrNothing(metric(MetricOf(request.flops))),
                                 OrNothing(OverSeeds(group, StepsPerSecond).mean),
                                 OrNothing(perplexity.mean),
                                 OrNothing(perplexity.sd)};
  if (study.has_scores) {
    row.push_back(OrNothing(Percent(downstream.mean)));
    row.push_back(OrNothing(Percent(downstream.sd)));
  }
  if (several_devices) row.emplace_back(DevicesText(analysis::DevicesOf(group.cells)));
  row.emplace_back(FlagsOf(study, group));
  return row;
}

common::Table ModelsTable(const Study& study) {
  common::Table table{.name = "models", .columns = {}, .rows = {}};
  const std::set<std::string> devices = AllDevices(study);
  AddColumns(study, devices.size() > 1, &table);
  for (const CellGroup& group : study.selection.groups) table.rows.push_back(RowOf(study, group, devices.size() > 1));
  table.notes.push_back(
      "Means over seeds; ± is the standard deviation between them. Perplexity is e to the validation "
      "loss, of a target token.");
  if (devices.size() > 1)
    table.notes.push_back("Steps a second compare on equal devices only, and these cells ran on several.");
  else if (!devices.empty())
    table.notes.push_back("Steps a second on " + DevicesText(devices) + ".");
  return table;
}

}  // namespace

Section ModelsSection(const Study& study) {
  Section section{.name = "models", .title = "Models", .text = {}, .figures = {}, .tables = {}};
  section.tables.push_back({"Table 1. Parameters, FLOPs, speed and quality of each model", ModelsTable(study)});
  return section;
}

Section ScoresSection(const Study& study) {
  Section section{.name = "scores", .title = "Scores by task", .text = {}, .figures = {}, .tables = {}};
  if (!study.has_scores) {
    section.text.emplace_back("No scores: no cell has any.");
    return section;
  }
  const auto scores = analysis::Scores(study.table, {.mean_over_seeds = true});
  if (scores)
    section.tables = ScoreTables(*scores);
  else
    section.text.push_back("No scores: " + scores.error().message + ".");
  return section;
}

}  // namespace allometry::report
