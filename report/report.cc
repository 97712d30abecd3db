#include "report/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "common/version.h"
#include "report/sections.h"

namespace allometry::report {
namespace {

using common::Json;
using common::Result;

constexpr const char* kUsualBaseline = "transformer";
constexpr const char* kAllPairs = "*";

std::vector<std::string> SweepsOf(const records::Table& table) {
  std::vector<std::string> sweeps;
  for (const records::Record& record : table)
    if (!record.sweep.empty() && std::ranges::find(sweeps, record.sweep) == sweeps.end())
      sweeps.push_back(record.sweep);
  return sweeps;
}

// The architecture that the figures draw beside every other one.
std::string BaselineOf(const std::string& wanted, const std::vector<std::string>& architectures) {
  if (!wanted.empty() && wanted != kAllPairs) return wanted;
  const bool usual = std::ranges::find(architectures, kUsualBaseline) != architectures.end();
  return usual ? kUsualBaseline : architectures.front();
}

size_t UsedCells(const analysis::Selection& selection) {
  size_t used = 0;
  for (const analysis::CellGroup& group : selection.groups) used += group.cells.size();
  return used;
}

bool HasScores(const analysis::Selection& selection) {
  return std::ranges::any_of(selection.groups, [](const analysis::CellGroup& group) {
    return std::ranges::any_of(group.cells, [](const records::Record* cell) { return !cell->scores.empty(); });
  });
}

// The curves of the cells of a table, in the table's order.
std::vector<records::Curve> CurvesOf(const records::Table& table, const std::vector<records::Curve>& curves) {
  std::set<std::string> names;
  for (const records::Record& record : table) names.insert(record.Name());
  std::vector<records::Curve> kept;
  for (const records::Curve& curve : curves)
    if (names.contains(curve.Name())) kept.push_back(curve);
  return kept;
}

Json ProvenanceOf(const Study& study) {
  const analysis::SlopesRequest& slopes = study.request.slopes;
  std::set<std::string> devices;
  for (const analysis::CellGroup& group : study.selection.groups) devices.merge(analysis::DevicesOf(group.cells));
  const size_t used = UsedCells(study.selection);
  return {{"program", std::string("allometry ") + common::kVersion + " (" + common::kCommit + ")"},
          {"data_version", study.request.data_version},
          {"sweeps", SweepsOf(study.table)},
          {"cells", {{"all", study.table.size()}, {"used", used}, {"left_out", study.table.size() - used}}},
          {"architectures", study.selection.architectures},
          {"devices", devices},
          {"filter", slopes.filter},
          {"excluded", slopes.exclude},
          {"transform", TransformName(slopes.transform)},
          {"flops", FlopConventionName(slopes.flops)},
          {"parameters", ParameterConventionName(slopes.parameters)},
          {"confidence", slopes.confidence},
          {"baseline", study.baseline},
          {"downstream",
           {{"definition", DefinitionName(study.selection.downstream.definition)},
            {"parts", study.selection.downstream.parts},
            {"note", study.selection.downstream.note}}},
          {"seed", study.request.seed},
          {"draws", study.request.draws},
          {"replicates", study.request.replicates}};
}

common::Status CheckReportRequest(const ReportRequest& request) {
  ALLO_RETURN_IF_ERROR(analysis::CheckDraws(request.draws, std::nullopt));
  if (request.replicates >= 0 && request.replicates <= 1'000'000) return common::Ok();
  return common::InvalidArgument("a report takes 0 to 1000000 replicates of the bootstrap, not " +
                                 std::to_string(request.replicates));
}

// The cells by themselves, those that the user leaves out marked so.
records::Table TableOf(const analysis::RequestedCells& requested) {
  records::Table table;
  for (const records::Record* record : requested.cells) {
    table.push_back(*record);
    if (requested.excluded.contains(record) && !record->excluded) table.back().excluded = "";
  }
  return table;
}

// Everything that several sections need. The slopes check the rest of the request.
Result<Study> Prepare(const records::Table& table, const std::vector<records::Curve>& curves,
                      const ReportRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckReportRequest(request));
  const analysis::SlopesRequest& wanted = request.slopes;
  ALLO_ASSIGN_OR_RETURN(const auto requested, analysis::FilteredCells(table, wanted.filter, wanted.exclude));
  records::Table kept = TableOf(requested);
  ALLO_ASSIGN_OR_RETURN(const auto cells, analysis::FilteredCells(kept, "", {}));
  ALLO_ASSIGN_OR_RETURN(analysis::Selection selection, analysis::SelectCells(cells, wanted.tasks));
  if (selection.groups.empty()) return NoCells(selection);
  const std::string baseline = BaselineOf(wanted.baseline, selection.architectures);
  analysis::SlopesRequest slopes_request = wanted;
  slopes_request.filter.clear();  // applied already
  slopes_request.exclude.clear();
  if (wanted.baseline.empty()) slopes_request.baseline = baseline;
  ALLO_ASSIGN_OR_RETURN(analysis::SlopesResult slopes, analysis::Slopes(kept, slopes_request));
  Palette palette(selection.architectures, baseline);
  const bool has_scores = HasScores(selection);
  std::vector<records::Curve> kept_curves = CurvesOf(kept, curves);
  // `selection` points into the elements of `kept`, which a move leaves where they are.
  return Study{request,           std::move(kept), std::move(selection), std::move(kept_curves),
               std::move(slopes), baseline,        std::move(palette),   has_scores};
}

std::string TitleOfStudy(const Study& study) {
  if (!study.request.title.empty()) return study.request.title;
  const std::vector<std::string> sweeps = SweepsOf(study.table);
  return sweeps.empty() ? "Scaling study" : Joined(sweeps, ", ");
}

std::string Count(size_t count, const std::string& singular) {
  return std::to_string(count) + " " + singular + (count == 1 ? "" : "s");
}

std::string SummaryOf(const Study& study) {
  const analysis::SlopesRequest& r = study.request.slopes;
  return std::to_string(UsedCells(study.selection)) + " of " + Count(study.table.size(), "cell") + ", " +
         Count(study.selection.architectures.size(), "architecture") + ", " +
         Count(study.selection.groups.size(), "model") + "; " + FlopConventionName(r.flops) + " FLOPs, " +
         TransformName(r.transform) + " slopes, " + Format("%.4g", 100 * r.confidence) + " % intervals.";
}

}  // namespace

const std::vector<std::string> kCurveSeries = {"train/loss", "valid/loss"};

Result<Report> BuildReport(const records::Table& table, const std::vector<records::Curve>& curves,
                           const ReportRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const Study study, Prepare(table, curves, request));
  Report report{
      .title = TitleOfStudy(study), .summary = SummaryOf(study), .provenance = ProvenanceOf(study), .sections = {}};
  for (const auto section : {FrontiersSection, ModelsSection, ScoresSection, SlopesSection, DepthAndWidthSection,
                             CurvesSection, RanksSection, CrossoversSection, LawsSection, ProvenanceSection})
    report.sections.push_back(section(study));
  return report;
}

std::vector<std::string> QualitiesOf(const Study& study) {
  if (study.has_scores) return {"upstream", "downstream"};
  return {"upstream"};
}

Json QualityAxis(const std::string& quality) {
  return quality == "upstream" ? LinearAxis("quality", QualityTitle(quality))
                               : PercentAxis("quality", QualityTitle(quality));
}

std::string QualityTitle(const std::string& quality) {
  return quality == "upstream" ? "U: −validation loss, nats" : "D: downstream score";
}

std::string FlopsTitle(const Study& study) {
  return std::string("F: ") + FlopConventionName(study.request.slopes.flops) + " FLOPs";
}

std::string Joined(const std::vector<std::string>& parts, const std::string& between) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : between) + part;
  return out;
}

std::string Format(const char* format, double a, double b, double c) {
  char text[200];
  std::snprintf(text, sizeof text, format, a, b, c);
  return text;
}

common::TableValue OrNothing(const std::optional<double>& value) {
  return value ? common::TableValue(*value) : common::TableValue();
}

std::string Capitalised(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

}  // namespace allometry::report
