#include "analysis/laws.h"
#include "report/sections.h"

// L(C) = E + A/C^alpha for each architecture, with what certifies the fit.
namespace allometry::report {
namespace {

using analysis::LawFit;
using analysis::LawForm;
using analysis::LawPoint;
using analysis::LawResult;
using common::ColumnKind;
using common::TableValue;

// A point a run. Runs without the cost or the loss are left out, as everywhere.
std::vector<LawPoint> PointsOf(const Study& study, const std::string& architecture) {
  std::vector<LawPoint> points;
  for (const analysis::CellGroup& group : study.selection.groups) {
    if (group.architecture != architecture) continue;
    for (const records::Record* cell : group.cells) {
      const auto flops = analysis::MetricValue(*cell, MetricOf(analysis::FlopConvention::kTraining), true);
      const auto loss = analysis::MetricValue(*cell, "validation_loss", true);
      if (flops.value && loss.value) points.push_back({.x = *flops.value, .y = *loss.value});
    }
  }
  return points;
}

std::string EstimateText(const analysis::LawEstimate& estimate) {
  std::string text = Format("%.3g", estimate.value);
  if (estimate.interval) text += Format(" (%.3g to %.3g)", estimate.interval->low, estimate.interval->high);
  return text;
}

// A fit that is not certified is never a number.
std::vector<TableValue> RowOf(const std::string& architecture, size_t points, const LawFit& fit) {
  std::vector<TableValue> row = {architecture, analysis::LawMethodName(fit.method), static_cast<int64_t>(points),
                                 fit.converged() ? "converged" : "not converged"};
  for (const analysis::LawEstimate& estimate : fit.estimates)
    row.push_back(fit.converged() ? TableValue(EstimateText(estimate)) : TableValue());
  const analysis::Certificate& c = fit.certificate;
  row.emplace_back(c.scaled_gradient);
  row.emplace_back(c.condition);
  row.emplace_back(std::to_string(c.starts_at_best) + " of " + std::to_string(c.starts));
  return row;
}

common::Table EmptyTable() {
  common::Table table{.name = "laws",
                      .columns = {{"architecture", "", "", ColumnKind::kText},
                                  {"method", "", "", ColumnKind::kText},
                                  {"points", "", "", ColumnKind::kInteger},
                                  {"status", "", "", ColumnKind::kText}},
                      .rows = {}};
  for (const std::string& name : analysis::LawParameterNames(LawForm::kCompute))
    table.columns.push_back({name, name == "alpha" ? "α" : name, "", ColumnKind::kText});
  table.columns.push_back({"scaled_gradient", "scaled gradient", "", ColumnKind::kNumber, 3});
  table.columns.push_back({"condition", "", "", ColumnKind::kQuantity});
  table.columns.push_back({"starts_at_best", "starts at best", "", ColumnKind::kText});
  return table;
}

void AddFit(const std::string& architecture, const LawResult& result, common::Table* table) {
  for (const LawFit& fit : result.fits) {
    table->rows.push_back(RowOf(architecture, result.points, fit));
    const std::string who = architecture + ", " + analysis::LawMethodName(fit.method) + ": ";
    for (const std::string& failure : fit.certificate.failures) table->notes.push_back(who + failure + ".");
    for (const std::string& note : fit.certificate.notes) table->notes.push_back(who + note + ".");
    if (fit.converged() && fit.failed_replicates > 0)
      table->notes.push_back(who + std::to_string(fit.failed_replicates) + " of " +
                             std::to_string(result.options.replicates) + " bootstrap samples determined no fit.");
  }
}

}  // namespace

Section LawsSection(const Study& study) {
  Section section{.name = "laws", .title = "Laws and their certificates", .text = {}, .figures = {}, .tables = {}};
  section.text.emplace_back(
      "L(C) = E + A/C^α for each architecture, C the training FLOPs, a point a run, by two methods "
      "with percentile bootstrap intervals. A fit whose certificate fails shows no parameters.");
  common::Table table = EmptyTable();
  const analysis::LawOptions options{.confidence = study.request.slopes.confidence,
                                     .replicates = study.request.replicates,
                                     .seed = study.request.seed};
  for (const std::string& architecture : study.selection.architectures) {
    const auto result = analysis::FitLaw(LawForm::kCompute, PointsOf(study, architecture), options);
    if (result)
      AddFit(architecture, *result, &table);
    else
      section.text.push_back("No fit of " + architecture + ": " + result.error().message + ".");
  }
  if (!table.rows.empty()) section.tables.push_back({"Fits of L(C), with their certificates", std::move(table)});
  return section;
}

}  // namespace allometry::report
