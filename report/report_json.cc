#include <array>
#include <stdexcept>

#include "report/report.h"

namespace allometry::report {
namespace {

using common::Column;
using common::ColumnKind;
using common::Json;
using common::Table;
using common::TableValue;

constexpr int kReportFormat = 1;
constexpr std::array kKindNames = {"text", "integer", "number", "quantity", "boolean"};

Json ValueJson(const TableValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  if (const auto* number = std::get_if<double>(&value)) return common::JsonNumber(*number);
  if (const auto* whole = std::get_if<int64_t>(&value)) return *whole;
  return nullptr;
}

Json ColumnsJson(const Table& table) {
  Json columns = Json::array();
  for (const Column& c : table.columns)
    columns.push_back({{"name", c.name},
                       {"title", c.title},
                       {"unit", c.unit},
                       {"kind", kKindNames[static_cast<size_t>(c.kind)]},
                       {"digits", c.digits}});
  return columns;
}

// Rows of a table as lists; a figure's are objects, since Vega-Lite reads them.
Json TableJson(const TitledTable& titled) {
  Json rows = Json::array();
  for (const auto& row : titled.table.rows) {
    Json& values = rows.emplace_back(Json::array());
    for (const TableValue& value : row) values.push_back(ValueJson(value));
  }
  return {{"name", titled.table.name},
          {"title", titled.title},
          {"columns", ColumnsJson(titled.table)},
          {"rows", std::move(rows)},
          {"notes", titled.table.notes}};
}

Json FigureJson(const Figure& figure) {
  return {{"name", figure.name},
          {"title", figure.title},
          {"caption", figure.caption},
          {"columns", ColumnsJson(figure.data)},
          {"specification", Specification(figure)}};
}

ColumnKind KindOf(const std::string& name) {
  for (size_t i = 0; i < kKindNames.size(); ++i)
    if (name == kKindNames[i]) return static_cast<ColumnKind>(i);
  throw std::invalid_argument("unknown kind of column '" + name + "'");
}

std::vector<Column> ColumnsOf(const Json& json) {
  std::vector<Column> columns;
  for (const Json& c : json)
    columns.push_back({c.at("name"), c.at("title"), c.at("unit"), KindOf(c.at("kind")), c.at("digits")});
  return columns;
}

TableValue ValueOf(const Json& json, const Column& column) {
  if (json.is_null()) return {};
  if (json.is_boolean()) return json.get<bool>();
  if (column.kind == ColumnKind::kText) return json.get<std::string>();
  if (json.is_number_integer() && column.kind == ColumnKind::kInteger) return json.get<int64_t>();
  if (const auto number = common::NumberFromJson(json)) return *number;
  throw std::invalid_argument("column '" + column.name + "' holds " + json.dump());
}

// Names become names of files and anchors, and the document may come from elsewhere.
std::string NameOf(const Json& json) {
  const std::string name = json.at("name");
  if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos)
    throw std::invalid_argument("'" + name + "' is no name: it takes a to z, digits and _");
  return name;
}

TitledTable TableOf(const Json& json) {
  TitledTable titled{.title = json.at("title"), .table = {.name = NameOf(json), .columns = {}, .rows = {}}};
  titled.table.columns = ColumnsOf(json.at("columns"));
  titled.table.notes = json.at("notes").get<std::vector<std::string>>();
  for (const Json& row : json.at("rows")) {
    auto& values = titled.table.rows.emplace_back();
    for (size_t c = 0; c < titled.table.columns.size(); ++c)
      values.push_back(ValueOf(row.at(c), titled.table.columns[c]));
  }
  return titled;
}

Figure FigureOf(const Json& json) {
  Figure figure{.name = NameOf(json), .title = json.at("title"), .caption = json.at("caption"), .data = {}, .view = {}};
  figure.data.columns = ColumnsOf(json.at("columns"));
  figure.view = json.at("specification");
  for (const Json& row : figure.view.at("data").at("values")) {
    auto& values = figure.data.rows.emplace_back();
    for (const Column& column : figure.data.columns) values.push_back(ValueOf(row.at(column.name), column));
  }
  for (const char* key : {"$schema", "data"}) figure.view.erase(key);
  return figure;
}

Section SectionOf(const Json& json) {
  Section section{
      .name = NameOf(json), .title = json.at("title"), .text = json.at("text"), .figures = {}, .tables = {}};
  for (const Json& figure : json.at("figures")) section.figures.push_back(FigureOf(figure));
  for (const Json& table : json.at("tables")) section.tables.push_back(TableOf(table));
  return section;
}

}  // namespace

Json ToJson(const Report& report) {
  Json sections = Json::array();
  for (const Section& section : report.sections) {
    Json figures = Json::array(), tables = Json::array();
    for (const Figure& figure : section.figures) figures.push_back(FigureJson(figure));
    for (const TitledTable& table : section.tables) tables.push_back(TableJson(table));
    sections.push_back({{"name", section.name},
                        {"title", section.title},
                        {"text", section.text},
                        {"figures", std::move(figures)},
                        {"tables", std::move(tables)}});
  }
  return {{"format", kReportFormat},
          {"title", report.title},
          {"summary", report.summary},
          {"provenance", report.provenance},
          {"sections", std::move(sections)}};
}

common::Result<Report> ReportFromJson(const Json& json) {
  try {
    if (const int format = json.at("format"); format != kReportFormat)
      return common::InvalidArgument("the report has format " + std::to_string(format) + ", and this program reads " +
                                     std::to_string(kReportFormat) + ": use the program that wrote it, or a newer one");
    Report report{
        .title = json.at("title"), .summary = json.at("summary"), .provenance = json.at("provenance"), .sections = {}};
    for (const Json& section : json.at("sections")) report.sections.push_back(SectionOf(section));
    return report;
  } catch (const std::exception& error) {  // of Json's accessors, and what the functions above throw
    return common::InvalidArgument(std::string("this is not a report's JSON: ") + error.what());
  }
}

}  // namespace allometry::report
