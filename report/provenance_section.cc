#include <map>

#include "common/version.h"
#include "report/sections.h"

// What was read, what was left out and why, and by which conventions.
namespace allometry::report {
namespace {

using common::ColumnKind;

common::Table CellsTable(const Study& study) {
  common::Table table{.name = "sweeps",
                      .columns = {{"sweep", "", "", ColumnKind::kText},
                                  {"cells", "", "", ColumnKind::kInteger},
                                  {"done", "", "", ColumnKind::kInteger},
                                  {"diverged", "", "", ColumnKind::kInteger},
                                  {"failed", "", "", ColumnKind::kInteger},
                                  {"unfinished", "", "", ColumnKind::kInteger}},
                      .rows = {}};
  std::map<std::string, std::map<records::CellState, int64_t>> counts;
  std::vector<std::string> order;
  for (const records::Record& record : study.table) {
    if (!counts.contains(record.sweep)) order.push_back(record.sweep);
    ++counts[record.sweep][record.state];
  }
  for (const std::string& sweep : order) {
    auto& states = counts[sweep];
    int64_t all = 0;
    for (const auto& [state, count] : states) all += count;
    table.rows.push_back({sweep, all, states[records::CellState::kDone], states[records::CellState::kDiverged],
                          states[records::CellState::kFailed], states[records::CellState::kUnfinished]});
  }
  return table;
}

common::Table LeftOutTable(const std::vector<analysis::LeftOut>& left_out) {
  common::Table table{.name = "left_out",
                      .columns = {{"cell", "", "", ColumnKind::kText},
                                  {"measure", "left out of", "", ColumnKind::kText},
                                  {"reason", "because", "", ColumnKind::kText}},
                      .rows = {}};
  for (const analysis::LeftOut& entry : left_out) table.rows.push_back({entry.cell, entry.measure, entry.reason});
  return table;
}

std::string ConventionsText(const Study& study) {
  const analysis::SlopesRequest& r = study.request.slopes;
  const std::vector<std::string>& parts = study.selection.downstream.parts;
  return std::string("F is ") + FlopConventionName(r.flops) + " FLOPs, P " + ParameterConventionName(r.parameters) +
         " parameters, U minus the validation loss in nats, D " +
         (parts.empty() ? "nothing, without scores" : "the mean of " + Joined(parts, ", ")) + "; slopes " +
         TransformName(r.transform) + ", intervals " + Format("%.4g", 100 * r.confidence) + " %.";
}

std::string DrawsText(const ReportRequest& request) {
  return "Draws: " + std::to_string(request.draws) + " for frontiers and ranks, " + std::to_string(request.replicates) +
         " bootstrap samples for laws, from seed " + std::to_string(request.seed) + ".";
}

}  // namespace

Section ProvenanceSection(const Study& study) {
  Section section{.name = "provenance", .title = "Provenance", .text = {}, .figures = {}, .tables = {}};
  section.text.push_back(ConventionsText(study));
  if (!study.selection.downstream.note.empty()) section.text.push_back("D: " + study.selection.downstream.note);
  section.text.push_back(DrawsText(study.request));
  const analysis::SlopesRequest& request = study.request.slopes;
  if (!request.filter.empty()) section.text.push_back("Filter: " + request.filter + ".");
  if (!request.exclude.empty()) section.text.push_back("Excluded: " + Joined(request.exclude, ", ") + ".");
  if (!study.request.data_version.empty()) section.text.push_back("Data: " + study.request.data_version + ".");
  section.text.push_back(std::string("Computed by Allometry ") + common::kVersion + " (" + common::kCommit + ").");
  section.tables.push_back({"Cells of each sweep", CellsTable(study)});
  if (study.slopes.left_out.empty())
    section.text.emplace_back("No cell is left out.");
  else
    section.tables.push_back({"Left out", LeftOutTable(study.slopes.left_out)});
  return section;
}

}  // namespace allometry::report
