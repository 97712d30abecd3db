#include "cli/law_tables.h"

#include <cstdio>
#include <map>
#include <string>

#include "cli/output.h"
#include "cli/tables.h"

namespace allometry::cli {
namespace {

using common::ColumnKind;
using common::Table;
using common::TableValue;

std::string ShortNumber(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

// "alpha 0.347 (0.317 to 0.372)".
std::string ParameterText(const v1::LawParameter& p) {
  std::string text = p.name() + " " + ShortNumber(p.value());
  if (p.has_low()) text += " (" + ShortNumber(p.low()) + " to " + ShortNumber(p.high()) + ")";
  return text;
}

std::string StatusOf(const v1::Law& law) {
  if (!law.refused().empty()) return "refused";
  return law.converged() ? "converged" : "not converged";
}

std::string LawName(const v1::Law& law) {
  return law.architecture() + " " + law.form() + (law.method().empty() ? "" : " " + law.method());
}

template <typename Texts>
std::string Joined(const Texts& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : "; ") + text;
  return out;
}

// A fit that did not converge shows no numbers: its reasons are in the notes.
Table LawsForPeople(const v1::FitResponse& fit) {
  Table table;
  table.columns = {{"architecture", "", "", ColumnKind::kText}, {"form", "", "", ColumnKind::kText},
                   {"method", "", "", ColumnKind::kText},       {"points", "", "", ColumnKind::kInteger},
                   {"status", "", "", ColumnKind::kText},       {"parameters", "", "", ColumnKind::kText}};
  for (const v1::Law& law : fit.laws()) {
    std::string parameters;
    if (law.converged())
      for (const v1::LawParameter& p : law.parameters())
        parameters += (parameters.empty() ? "" : ", ") + ParameterText(p);
    table.rows.push_back({law.architecture(), law.form(), OrNone(law.method()), int64_t{law.points()}, StatusOf(law),
                          OrNone(parameters)});
    if (!law.refused().empty()) table.notes.push_back(LawName(law) + " refused: " + law.refused());
    if (law.failures_size() > 0) table.notes.push_back(LawName(law) + " not converged: " + Joined(law.failures()));
    if (law.notes_size() > 0) table.notes.push_back(LawName(law) + ": " + Joined(law.notes()));
  }
  return table;
}

Table TidyLaws(const v1::FitResponse& fit) {
  Table table;
  for (const char* text : {"architecture", "form", "method"})
    table.columns.push_back({text, "", "", ColumnKind::kText});
  table.columns.push_back({"points", "", "", ColumnKind::kInteger});
  for (const char* text : {"status", "parameter"}) table.columns.push_back({text, "", "", ColumnKind::kText});
  for (const char* number : {"value", "low", "high", "standard_error"})
    table.columns.push_back({number, "", "", ColumnKind::kNumber, 4});
  table.columns.push_back({"reason", "", "", ColumnKind::kText});
  for (const v1::Law& law : fit.laws()) {
    const std::string reason = law.refused().empty() ? Joined(law.failures()) : law.refused();
    if (law.parameters().empty())
      table.rows.push_back({law.architecture(),
                            law.form(),
                            OrNone(law.method()),
                            int64_t{law.points()},
                            StatusOf(law),
                            {},
                            {},
                            {},
                            {},
                            {},
                            OrNone(reason)});
    for (const v1::LawParameter& p : law.parameters())
      table.rows.push_back({law.architecture(), law.form(), law.method(), int64_t{law.points()}, StatusOf(law),
                            p.name(), p.value(), p.has_low() ? TableValue(p.low()) : TableValue(),
                            p.has_high() ? TableValue(p.high()) : TableValue(), OrNone(p.standard_error()),
                            OrNone(reason)});
  }
  return table;
}

std::string RangeText(bool known, double low, double high) {
  return known ? common::FormatQuantity(low) + " to " + common::FormatQuantity(high) : "";
}

template <typename Message>
void AddNotes(const Message& message, Table* table) {
  for (std::string& note : LeftOutNotes(message.left_out())) table->notes.push_back(std::move(note));
}

}  // namespace

Table LawsTable(const v1::FitResponse& fit, bool tidy) {
  Table table = tidy ? TidyLaws(fit) : LawsForPeople(fit);
  table.name = "laws";
  AddNotes(fit, &table);
  return table;
}

Table OptimaTable(const v1::FitResponse& fit) {
  Table table;
  table.name = "compute_optimal";
  table.columns = {
      {"architecture", "", "", ColumnKind::kText},         {"method", "", "", ColumnKind::kText},
      {"parameters", "best N", "", ColumnKind::kQuantity}, {"parameters_interval", "", "", ColumnKind::kText},
      {"tokens", "best D", "", ColumnKind::kQuantity},     {"tokens_interval", "", "", ColumnKind::kText},
      {"loss", "loss", "nats", ColumnKind::kNumber, 4}};
  table.columns[3].title = table.columns[5].title = "interval";
  for (const v1::Law& law : fit.laws()) {
    if (!law.no_optimal().empty()) table.notes.push_back(LawName(law) + ": " + law.no_optimal());
    if (!law.has_optimal()) continue;
    const v1::ComputeOptimal& at = law.optimal();
    table.rows.push_back({law.architecture(), law.method(), at.parameters(),
                          OrNone(RangeText(at.has_parameters_low(), at.parameters_low(), at.parameters_high())),
                          at.tokens(), OrNone(RangeText(at.has_tokens_low(), at.tokens_low(), at.tokens_high())),
                          at.loss()});
  }
  return table;
}

Table ErrorsTable(const v1::BacktestResponse& backtest) {
  Table table;
  table.name = "errors";
  table.columns = {{"axes", "", "", ColumnKind::kText},
                   {"form", "", "", ColumnKind::kText},
                   {"asked", "", "", ColumnKind::kInteger},
                   {"refused", "", "", ColumnKind::kInteger},
                   {"median_percent", "median error %", "percent", ColumnKind::kNumber, 2},
                   {"largest_percent", "largest %", "percent", ColumnKind::kNumber, 2},
                   {"mean_percent", "mean %", "percent", ColumnKind::kNumber, 2}};
  const auto percent = [](bool known, double share) { return known ? TableValue(100 * share) : TableValue(); };
  for (const v1::BacktestSummary& s : backtest.summaries())
    table.rows.push_back({s.axes(), s.form(), int64_t{s.asked()}, int64_t{s.refused()},
                          percent(s.has_median_relative_error(), s.median_relative_error()),
                          percent(s.has_largest_relative_error(), s.largest_relative_error()),
                          percent(s.has_mean_relative_error(), s.mean_relative_error())});
  table.notes.emplace_back("of the largest size of each architecture, forecast from the smaller ones");
  AddNotes(backtest, &table);
  return table;
}

Table ForecastsTable(const v1::BacktestResponse& backtest, bool tidy) {
  Table table;
  table.name = "forecasts";
  table.columns = {{"axes", "", "", ColumnKind::kText},
                   {"form", "", "", ColumnKind::kText},
                   {"architecture", "", "", ColumnKind::kText},
                   {"size", "", "", ColumnKind::kText},
                   {"forecast", "", "", ColumnKind::kNumber, 4},
                   {"measured", "", "", ColumnKind::kNumber, 4},
                   {"error_percent", "error %", "percent", ColumnKind::kNumber, 2},
                   {"in_seed_interval", "in seed int.", "", ColumnKind::kBoolean},
                   {"in_line_interval", "in line int.", "", ColumnKind::kBoolean}};
  if (tidy) table.columns.push_back({"refused", "", "", ColumnKind::kText});
  std::map<std::string, std::string> refusals;  // architectures by form and reason
  const auto number = [](bool known, double value) { return known ? TableValue(value) : TableValue(); };
  const auto flag = [](bool known, bool value) { return known ? TableValue(value) : TableValue(); };
  for (const v1::BacktestRow& row : backtest.rows()) {
    if (!tidy && !row.refused().empty()) {
      refusals[row.axes() + " " + row.form() + ": " + row.refused()] += " " + row.architecture();
      continue;
    }
    table.rows.push_back({row.axes(), row.form(), row.architecture(), OrNone(row.size()),
                          number(row.has_forecast(), row.forecast()), number(row.has_measured(), row.measured()),
                          number(row.has_relative_error(), 100 * row.relative_error()),
                          flag(row.has_in_seed_interval(), row.in_seed_interval()),
                          flag(row.has_in_line_interval(), row.in_line_interval())});
    if (tidy) table.rows.back().push_back(OrNone(row.refused()));
  }
  for (const auto& [reason, architectures] : refusals)
    table.notes.push_back(reason + " (" + architectures.substr(1) + ")");
  return table;
}

Table SuggestedCellsTable(const v1::SuggestResponse& suggested) {
  Table table;
  table.name = "cells";
  table.columns = {{"architecture", "", "", ColumnKind::kText},
                   {"size", "", "", ColumnKind::kText},
                   {"seed", "", "", ColumnKind::kInteger},
                   {"flops", "training FLOPs", "", ColumnKind::kQuantity}};
  for (const v1::SuggestedCell& cell : suggested.cells())
    table.rows.push_back({cell.architecture(), cell.size(), static_cast<int64_t>(cell.seed()), cell.flops()});
  table.notes.push_back(std::to_string(suggested.cells_size()) + " cells, " +
                        common::FormatQuantity(suggested.flops()) + " training FLOPs");
  for (const std::string& note : suggested.notes()) table.notes.push_back(note);
  AddNotes(suggested, &table);
  return table;
}

Table TargetsTable(const v1::SuggestResponse& suggested) {
  Table table;
  table.name = "targets";
  table.columns = {{"architecture", "", "", ColumnKind::kText},
                   {"name", "of", "", ColumnKind::kText},
                   {"value", "", "", ColumnKind::kNumber, 4},
                   {"half_width_now", "± now", "", ColumnKind::kNumber, 4},
                   {"half_width_after", "± after", "", ColumnKind::kNumber, 4}};
  const auto number = [](bool known, double value) { return known ? TableValue(value) : TableValue(); };
  for (const v1::SuggestedTarget& target : suggested.targets()) {
    table.rows.push_back({target.architecture(), target.name(), number(target.has_value(), target.value()),
                          number(target.has_half_width_now(), target.half_width_now()),
                          number(target.has_half_width_after(), target.half_width_after())});
    if (!target.refused().empty()) table.notes.push_back(target.architecture() + ": " + target.refused());
  }
  return table;
}

Table NewSizesTable(const v1::SuggestResponse& suggested) {
  Table table;
  table.name = "new_sizes";
  table.columns = {{"architecture", "new size", "", ColumnKind::kText},
                   {"at", "at", "", ColumnKind::kQuantity},
                   {"flops", "FLOPs of 2 seeds", "", ColumnKind::kQuantity},
                   {"affordable", "", "", ColumnKind::kBoolean},
                   {"half_width_now", "± now", "", ColumnKind::kNumber, 4},
                   {"half_width_after", "± after", "", ColumnKind::kNumber, 4}};
  for (const v1::SuggestedSize& size : suggested.new_sizes())
    table.rows.push_back({size.architecture(), size.at(), size.flops(), size.affordable(), size.half_width_now(),
                          size.half_width_after()});
  return table;
}

Table PowerTable(const v1::SuggestResponse& suggested) {
  Table table;
  table.name = "power";
  table.columns = {{"sizes", "sizes", "", ColumnKind::kInteger},
                   {"seeds", "seeds each", "", ColumnKind::kInteger},
                   {"smallest_difference", "difference seen", "", ColumnKind::kNumber, 4}};
  for (const v1::PowerRow& row : suggested.power())
    table.rows.push_back({int64_t{row.sizes()}, OrNone(int64_t{row.seeds()}), row.smallest_difference()});
  if (!table.rows.empty())
    table.notes.emplace_back(
        "the fewest seeds at which two slopes that differ by delta do so visibly in 80 % of studies");
  return table;
}

}  // namespace allometry::cli
