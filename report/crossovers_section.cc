#include "analysis/crossover.h"
#include "report/sections.h"

namespace allometry::report {
namespace {

using analysis::Crossover;
using analysis::CrossoverBand;
using analysis::CrossoversResult;
using common::ColumnKind;
using common::TableValue;

constexpr size_t kMostForAllPairs = 12;  // architectures: 66 pairs

// A transformed x as FLOPs.
std::string FlopsText(double x, analysis::Transform transform) {
  return common::FormatQuantity(ValueOfX(x, analysis::Axis::kFlops, transform));
}

// "1.2G to 3.4G", "from 3.4G", "up to 1.2G", "everywhere".
std::string BandText(const CrossoverBand& band, analysis::Transform transform) {
  if (!band.low && !band.high) return "everywhere";
  if (!band.low) return "up to " + FlopsText(*band.high, transform);
  if (!band.high) return "from " + FlopsText(*band.low, transform);
  return FlopsText(*band.low, transform) + " to " + FlopsText(*band.high, transform);
}

TableValue TextOrNothing(const std::string& text) { return text.empty() ? TableValue() : TableValue(text); }

std::vector<TableValue> RowOf(const Crossover& c, analysis::Transform transform) {
  std::vector<std::string> at, bands;
  for (const double x : c.at) at.push_back(FlopsText(x, transform));
  for (const CrossoverBand& band : c.bands) bands.push_back(BandText(band, transform));
  return {c.first,
          c.second,
          c.verdict,
          TextOrNothing(Joined(at, ", ")),
          TextOrNothing(Joined(bands, ", ")),
          TextOrNothing(c.ahead_below),
          TextOrNothing(c.ahead_above)};
}

common::Table CrossoverTable(const CrossoversResult& result, const std::string& name) {
  common::Table table{.name = name, .columns = {}, .rows = {}};
  for (const auto& [column, title] : {std::pair{"first", ""},
                                      {"second", ""},
                                      {"verdict", ""},
                                      {"at", "at FLOPs"},
                                      {"bands", "not told apart"},
                                      {"ahead_below", "ahead below"},
                                      {"ahead_above", "ahead above"}})
    table.columns.push_back({column, title, "", ColumnKind::kText});
  for (const Crossover& c : result.crossovers) {
    table.rows.push_back(RowOf(c, result.request.slopes.transform));
    if (!c.reason.empty()) table.notes.push_back(c.first + ", " + c.second + ": " + c.reason + ".");
  }
  return table;
}

void AddAxes(const Study& study, analysis::Axis y, Section* section) {
  analysis::CrossoversRequest request{.slopes = study.slopes.request, .axes = {analysis::Axis::kFlops, y}};
  const bool all_pairs = study.selection.architectures.size() <= kMostForAllPairs;
  if (!all_pairs) request.first = study.baseline;
  const std::string quality = AxisName(y);
  const auto result = analysis::Crossovers(study.table, request);
  if (!result) {
    section->text.push_back("No " + quality + " crossovers: " + result.error().message + ".");
    return;
  }
  section->tables.push_back({"Crossovers of " + quality + " quality along " + FlopsTitle(study) +
                                 (all_pairs ? "" : ", " + study.baseline + " against each other architecture"),
                             CrossoverTable(*result, "crossovers_" + quality)});
}

}  // namespace

Section CrossoversSection(const Study& study) {
  Section section{.name = "crossovers", .title = "Crossovers", .text = {}, .figures = {}, .tables = {}};
  AddAxes(study, analysis::Axis::kUpstream, &section);
  if (study.has_scores) AddAxes(study, analysis::Axis::kDownstream, &section);
  return section;
}

}  // namespace allometry::report
