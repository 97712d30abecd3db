#include "analysis/tables.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <set>

namespace allometry::analysis {
namespace {

using common::ColumnKind;
using common::OutputFormat;
using common::Table;
using common::TableValue;

// The study's Table 2.
constexpr std::array<std::pair<Axis, Axis>, 4> kShownPairs = {{{Axis::kFlops, Axis::kUpstream},
                                                               {Axis::kFlops, Axis::kDownstream},
                                                               {Axis::kParameters, Axis::kUpstream},
                                                               {Axis::kUpstream, Axis::kDownstream}}};

struct FlagLetter {
  const char* flag;
  const char* letter;
  const char* meaning;
};
constexpr std::array<FlagLetter, 6> kFlagLetters = {{
    {"one seed", "1", "one seed, so ± is the line interval"},
    {"two sizes", "2", "two sizes"},
    {"curved", "c", "curved: size means lie off the line by more than seeds explain"},
    {"unequal seed sd", "u", "unequal seed sd: some sizes vary over three times as much as others"},
    {"pooled across unequal seeds", "p", "pooled across unequal numbers of seeds"},
    {"at chance", "g", "some scores are no better than guessing the majority"},
}};

std::string Joined(const std::vector<std::string>& parts, const char* between) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : between) + part;
  return out;
}

TableValue OrNothing(const std::optional<double>& value) { return value ? TableValue(*value) : TableValue(); }

TableValue Low(const std::optional<Interval>& i) { return i ? TableValue(i->low) : TableValue(); }
TableValue High(const std::optional<Interval>& i) { return i ? TableValue(i->high) : TableValue(); }
TableValue Degrees(const std::optional<Interval>& i) { return i ? TableValue(i->degrees_of_freedom) : TableValue(); }

std::string Letters(const SlopeEstimate& e, std::set<std::string>* seen) {
  std::string letters;
  for (const FlagLetter& entry : kFlagLetters) {
    if (!e.HasFlag(entry.flag)) continue;
    letters += entry.letter;
    seen->insert(entry.letter);
  }
  return letters;
}

// "0.540±0.048 cu"; "-" when refused.
std::string SlopeText(const Slope& slope, std::set<std::string>* seen) {
  const SlopeEstimate& e = slope.estimate;
  if (!e.alpha) return "-";
  char text[64];
  const std::optional<Interval>& shown = e.seed_interval ? e.seed_interval : e.line_interval;
  if (shown) {
    std::snprintf(text, sizeof text, "%.3f±%.3f", *e.alpha, (shown->high - shown->low) / 2);
  } else {
    std::snprintf(text, sizeof text, "%.3f±?", *e.alpha);
  }
  const std::string letters = Letters(e, seen);
  return letters.empty() ? text : std::string(text) + " " + letters;
}

std::string PairTitle(Axis x, Axis y) { return std::string("α(") + AxisLetter(x) + "," + AxisLetter(y) + ")"; }

std::string PairName(Axis x, Axis y) { return std::string("alpha_") + AxisName(x) + "_" + AxisName(y); }

std::string Percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g %%", 100 * share);
  return text;
}

void AddLeftOutNotes(const std::vector<LeftOut>& left_out, Table* table) {
  for (const LeftOut& entry : left_out) {
    const std::string measure = entry.measure == "all" ? "" : " (" + entry.measure + ")";
    table->notes.push_back("left out: " + entry.cell + measure + ": " + entry.reason);
  }
}

void AddRefusedNotes(const SlopesResult& result, Table* table) {
  for (const auto& [x, y] : kShownPairs) {
    for (const ArchitectureSlopes& a : result.architectures) {
      const Slope* slope = FindSlope(a, x, y);
      if (slope && !slope->estimate.refused.empty())
        table->notes.push_back(PairTitle(x, y) + " of " + a.architecture + ": " + slope->estimate.refused);
    }
  }
}

// Most slopes of an architecture have this flag or none, so it is said once and not at every number.
void AddRangeNotes(const SlopesResult& result, Table* table) {
  for (const ArchitectureSlopes& a : result.architectures) {
    std::vector<std::string> pairs;
    for (const auto& [x, y] : kShownPairs) {
      if (FindSlope(a, x, y)->estimate.HasFlag("ranges differ")) pairs.push_back(PairTitle(x, y));
    }
    if (!pairs.empty())
      table->notes.push_back("ranges differ from those of " + result.reference + ": " + a.architecture + " in " +
                             Joined(pairs, " "));
  }
}

std::string PText(const std::optional<double>& p) {
  if (!p) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", *p);
  return *p < 0.001 ? "<0.001" : text;
}

std::string DifferenceText(const SlopeComparison& c) {
  if (!c.difference) return "-";
  char text[64];
  const std::optional<Interval>& i = c.seed_interval;
  std::snprintf(text, sizeof text, i ? "%+.3f±%.3f" : "%+.3f", *c.difference, i ? (i->high - i->low) / 2 : 0.0);
  return text;
}

bool IsShown(const SlopeComparison& c) {
  for (const auto& [x, y] : kShownPairs) {
    if (c.x == x && c.y == y) return true;
  }
  return false;
}

void AddLetterNotes(const std::set<std::string>& letters, Table* table) {
  for (const FlagLetter& entry : kFlagLetters) {
    if (letters.contains(entry.letter)) table->notes.push_back(std::string(entry.letter) + " = " + entry.meaning);
  }
}

void AddSlopeNotes(const SlopesResult& result, const std::set<std::string>& letters, Table* table) {
  const SlopesRequest& request = result.request;
  table->notes.push_back("F " + std::string(FlopConventionName(request.flops)) + " FLOPs, P " +
                         ParameterConventionName(request.parameters) +
                         " parameters, U -validation loss (nats), D mean of " +
                         (result.downstream.parts.empty() ? "no task" : Joined(result.downstream.parts, ", ")) + ".");
  if (!result.downstream.note.empty()) table->notes.push_back(result.downstream.note);
  table->notes.push_back(std::string(TransformName(request.transform)) + "; ± is the half width of the " +
                         Percent(request.confidence) + " seed interval: this grid under other seeds.");
  AddLetterNotes(letters, table);
  AddRangeNotes(result, table);
  AddRefusedNotes(result, table);
  AddLeftOutNotes(result.left_out, table);
}

std::string RegionNote(const ParetoRegion& region, const char* unit) {
  std::string text = "best from " + common::FormatQuantity(region.low) + " to " + common::FormatQuantity(region.high) +
                     " " + unit + ": ";
  if (region.cells == 0) return text + "no cells";
  std::vector<std::string> parts;
  for (const RegionBest& best : region.best) {
    if (parts.size() < 3)
      parts.push_back(best.architecture + " " + Percent(std::round(best.probability * 1000) / 1000));
  }
  return text + Joined(parts, ", ");
}

std::string HypervolumeNote(const ParetoResult& result) {
  if (!result.hypervolume) return "no hypervolume: " + result.no_hypervolume;
  char text[64];
  std::snprintf(text, sizeof text, "hypervolume: %.4g (decades of cost x quality) up to ", *result.hypervolume);
  std::string out = text;
  for (size_t k = 0; k < result.reference.costs.size(); ++k)
    out += common::FormatQuantity(result.reference.costs[k]) + " " + CostUnit(result.request.costs[k]) + ", ";
  std::snprintf(text, sizeof text, "quality %.4g.", result.reference.quality);
  return out + text;
}

void AddParetoNotes(const ParetoResult& result, Table* table) {
  const ParetoRequest& request = result.request;
  std::vector<std::string> costs;
  for (const Cost cost : request.costs)
    costs.push_back(CostName(cost) + (cost == Cost::kFlops ? " (" + std::string(FlopConventionName(request.flops)) + ")"
                                                           : std::string()));
  table->notes.push_back("cost: " + Joined(costs, ", ") +
                         "; quality: " + (request.quality == "upstream" ? "-validation loss (nats)" : request.quality) +
                         ", mean over seeds; * = no other cell is cheaper" +
                         (costs.size() > 1 ? " in every cost" : "") + " and better.");
  if (result.no_probability.empty()) {
    char text[160];
    std::snprintf(text, sizeof text,
                  "p: probability that the expected quality is on the frontier (seed sd %.3g, %d draws).",
                  *result.seed_sd, request.draws);
    table->notes.push_back(text);
    for (const ParetoRegion& region : result.regions)
      table->notes.push_back(RegionNote(region, CostUnit(request.costs.front())));
  } else {
    table->notes.push_back("no probabilities: " + result.no_probability);
  }
  table->notes.push_back(HypervolumeNote(result));
  AddLeftOutNotes(result.left_out, table);
}

// Columns of the rows for programs.
void AddColumns(const std::vector<const char*>& names, ColumnKind kind, Table* table) {
  for (const char* name : names) table->columns.push_back({name, "", "", kind});
}

const char* NameOfY(const Slope& slope) { return slope.task.empty() ? AxisName(slope.y) : slope.task.c_str(); }

void AddSlopeRows(const std::vector<ArchitectureSlopes>& architectures, const SlopesRequest& request, Table* table) {
  for (const ArchitectureSlopes& architecture : architectures) {
    for (const Slope& slope : architecture.slopes) {
      const SlopeEstimate& e = slope.estimate;
      table->rows.push_back({architecture.architecture, AxisName(slope.x), NameOfY(slope), OrNothing(e.alpha),
                             Low(e.seed_interval), High(e.seed_interval), Degrees(e.seed_interval),
                             Low(e.line_interval), High(e.line_interval), Degrees(e.line_interval),
                             static_cast<int64_t>(slope.points.size()), static_cast<int64_t>(slope.cells),
                             Joined(e.flags, "; "), e.refused, TransformName(request.transform),
                             FlopConventionName(request.flops), ParameterConventionName(request.parameters)});
    }
  }
}

}  // namespace

common::Table ToTable(const SlopesResult& result) {
  Table table{.name = "architectures", .columns = {{"architecture", "", "", ColumnKind::kText}}};
  for (const auto& [x, y] : kShownPairs)
    table.columns.push_back({PairName(x, y), PairTitle(x, y), "", ColumnKind::kText});
  std::set<std::string> letters;
  for (const ArchitectureSlopes& architecture : result.architectures) {
    auto& row = table.rows.emplace_back();
    row.push_back(architecture.architecture);
    for (const auto& [x, y] : kShownPairs) row.push_back(SlopeText(*FindSlope(architecture, x, y), &letters));
  }
  AddSlopeNotes(result, letters, &table);
  return table;
}

common::Table SlopeRows(const SlopesResult& result) {
  Table table{.name = "slopes"};
  AddColumns({"architecture", "x", "y"}, ColumnKind::kText, &table);
  AddColumns(
      {"alpha", "seed_low", "seed_high", "seed_degrees_of_freedom", "line_low", "line_high", "line_degrees_of_freedom"},
      ColumnKind::kNumber, &table);
  AddColumns({"sizes", "cells"}, ColumnKind::kInteger, &table);
  AddColumns({"flags", "refused", "transform", "flops", "parameters"}, ColumnKind::kText, &table);
  AddSlopeRows(result.architectures, result.request, &table);
  for (const TaskSlopes& task : result.tasks) AddSlopeRows(task.architectures, result.request, &table);
  return table;
}

common::Table TaskTable(const SlopesResult& result) {
  Table table{.name = "tasks", .columns = {{"task", "α(F,task)", "", ColumnKind::kText}}};
  for (const ArchitectureSlopes& a : result.architectures)
    table.columns.push_back({a.architecture, "", "", ColumnKind::kText});
  std::set<std::string> letters;
  for (const TaskSlopes& task : result.tasks) {
    auto& row = table.rows.emplace_back();
    row.push_back(task.task);
    for (const ArchitectureSlopes& a : task.architectures)
      row.push_back(SlopeText(*FindSlope(a, Axis::kFlops, Axis::kDownstream), &letters));
  }
  AddLetterNotes(letters, &table);
  return table;
}

common::Table ComparisonTable(const SlopesResult& result) {
  Table table{.name = "comparisons"};
  for (const char* name : {"slope", "first", "second", "difference"})
    table.columns.push_back({name, "", "", ColumnKind::kText});
  table.columns.push_back({"p_seeds_holm", "p", "", ColumnKind::kText});
  table.columns.push_back({"verdict", "", "", ColumnKind::kText});
  std::set<std::string> reasons;
  for (const SlopeComparison& c : result.comparisons) {
    if (!IsShown(c)) continue;
    table.rows.push_back({PairTitle(c.x, c.y), c.first, c.second, DifferenceText(c), PText(c.p_seeds_holm), c.verdict});
    if (!c.reason.empty() && reasons.insert(c.reason).second) table.notes.push_back("no verdict: " + c.reason);
  }
  return table;
}

common::Table ToTable(const ParetoResult& result) {
  Table table{.name = "points", .columns = {{"cell", "", "", ColumnKind::kText}}};
  for (const Cost cost : result.request.costs)
    table.columns.push_back({cost == result.request.costs.front() ? "cost" : CostName(cost), CostName(cost),
                             CostUnit(cost), ColumnKind::kQuantity});
  const std::vector<common::Column> others = {
      {"quality", "", "", ColumnKind::kNumber, 4},      {"parameters", "params", "", ColumnKind::kQuantity},
      {"seeds", "", "", ColumnKind::kInteger},          {"on_frontier", "*", "", ColumnKind::kText},
      {"probability", "p", "", ColumnKind::kNumber, 3}, {"flags", "", "", ColumnKind::kText}};
  table.columns.insert(table.columns.end(), others.begin(), others.end());
  for (const ParetoPoint& p : result.points) {
    auto& row = table.rows.emplace_back();
    row.push_back(p.cell);
    for (const double cost : p.costs) row.push_back(cost);
    for (TableValue& value :
         std::vector<TableValue>{p.quality, OrNothing(p.parameters), p.seeds, p.on_frontier ? "*" : "",
                                 OrNothing(p.probability), p.at_chance ? "at chance" : ""})
      row.push_back(std::move(value));
  }
  AddParetoNotes(result, &table);
  return table;
}

common::Table ParetoRows(const ParetoResult& result) {
  Table table{.name = "points"};
  const std::vector<Cost>& costs = result.request.costs;
  AddColumns({"cell", "architecture", "size"}, ColumnKind::kText, &table);
  AddColumns({"cost", "quality", "parameters"}, ColumnKind::kNumber, &table);
  AddColumns({"seeds"}, ColumnKind::kInteger, &table);
  AddColumns({"on_frontier", "at_chance"}, ColumnKind::kBoolean, &table);
  AddColumns({"region"}, ColumnKind::kInteger, &table);
  AddColumns({"probability", "probability_best_in_region"}, ColumnKind::kNumber, &table);
  AddColumns({"cost_name", "quality_name"}, ColumnKind::kText, &table);
  AddColumns({"hypervolume"}, ColumnKind::kNumber, &table);
  for (size_t k = 1; k < costs.size(); ++k) AddColumns({CostName(costs[k])}, ColumnKind::kNumber, &table);
  for (const ParetoPoint& p : result.points) {
    std::optional<double> best;
    if (!p.rank_probabilities.empty()) best = p.rank_probabilities.front();
    table.rows.push_back({p.cell, p.architecture, p.size, p.cost(), p.quality, OrNothing(p.parameters), p.seeds,
                          p.on_frontier, p.at_chance, static_cast<int64_t>(p.region), OrNothing(p.probability),
                          OrNothing(best), CostName(costs.front()), result.request.quality, p.hypervolume});
    for (size_t k = 1; k < costs.size(); ++k) table.rows.back().push_back(p.costs[k]);
  }
  return table;
}

std::string Render(const SlopesResult& result, OutputFormat format, int width) {
  if (format == OutputFormat::kJson) return ToJson(result).dump(2) + "\n";
  if (format == OutputFormat::kCsv) return common::Render(SlopeRows(result), format);
  std::string out = common::Render(ToTable(result), format, width);
  if (!result.comparisons.empty()) out += "\n" + common::Render(ComparisonTable(result), format, width);
  if (!result.tasks.empty()) out += "\n" + common::Render(TaskTable(result), format, width);
  return out;
}

std::string Render(const ParetoResult& result, OutputFormat format, int width) {
  if (format == OutputFormat::kJson) return ToJson(result).dump(2) + "\n";
  if (format == OutputFormat::kCsv) return common::Render(ParetoRows(result), format);
  return common::Render(ToTable(result), format, width);
}

}  // namespace allometry::analysis
