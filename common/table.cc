#include "common/table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>

#include "common/ids.h"

namespace allometry::common {
namespace {

constexpr int kSmallestTextWidth = 8;
constexpr std::string_view kGap = "  ";
constexpr std::array<std::string_view, 4> kFormatNames = {"table", "csv", "json", "markdown"};

std::string FirstCodePoints(std::string_view text, int count) {
  size_t end = 0;
  while (end < text.size()) {
    bool starts = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (starts && count-- == 0) break;
    ++end;
  }
  return std::string(text.substr(0, end));
}

std::string Shortened(const std::string& text, int width) {
  return DisplayWidth(text) <= width ? text : FirstCodePoints(text, width - 1) + "…";
}

const std::string& TitleOf(const Column& column) { return column.title.empty() ? column.name : column.title; }

std::string FormatDouble(double value, const Column& column) {
  if (!std::isfinite(value)) return ShortestDouble(value);
  if (column.kind == ColumnKind::kQuantity) return FormatQuantity(value);
  char buffer[64];
  bool fits = value == 0 || (std::abs(value) < 1e9 && std::abs(value) >= std::pow(10.0, -column.digits));
  std::snprintf(buffer, sizeof buffer, fits ? "%.*f" : "%.*g", fits ? column.digits : 3, value);
  return buffer;
}

// How people see one value.
std::string Shown(const TableValue& value, const Column& column) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "yes" : "no";
  if (const auto* number = std::get_if<double>(&value)) return FormatDouble(*number, column);
  if (const auto* whole = std::get_if<int64_t>(&value)) {
    return column.kind == ColumnKind::kQuantity ? FormatQuantity(static_cast<double>(*whole)) : std::to_string(*whole);
  }
  return "-";
}

std::string CsvValue(const TableValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return CsvField(*text);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<double>(&value)) return ShortestDouble(*number);
  if (const auto* whole = std::get_if<int64_t>(&value)) return std::to_string(*whole);
  return "";
}

Json JsonValue(const TableValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  if (const auto* number = std::get_if<double>(&value)) return JsonNumber(*number);
  if (const auto* whole = std::get_if<int64_t>(&value)) return *whole;
  return nullptr;
}

void CheckShape(const Table& table) {
  for (const auto& row : table.rows) {
    if (row.size() != table.columns.size()) throw std::invalid_argument("table '" + table.name + "': ragged row");
  }
}

std::vector<int> NaturalWidths(const Table& table, const std::vector<std::vector<std::string>>& shown) {
  std::vector<int> widths;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    int width = DisplayWidth(TitleOf(table.columns[c]));
    for (const auto& line : shown) width = std::max(width, DisplayWidth(line[c]));
    widths.push_back(width);
  }
  return widths;
}

// Takes one character at a time from the widest text column until the line fits or nothing more may be taken.
void FitWidths(const Table& table, int limit, std::vector<int>* widths) {
  int total = static_cast<int>(kGap.size()) * (static_cast<int>(widths->size()) - 1);
  for (int width : *widths) total += width;
  for (; total > limit; --total) {
    int* widest = nullptr;
    for (size_t c = 0; c < widths->size(); ++c) {
      bool may_shrink = table.columns[c].kind == ColumnKind::kText && (*widths)[c] > kSmallestTextWidth;
      if (may_shrink && (!widest || (*widths)[c] > *widest)) widest = &(*widths)[c];
    }
    if (!widest) return;
    --*widest;
  }
}

std::string AlignedLine(const Table& table, const std::vector<std::string>& values, const std::vector<int>& widths) {
  std::string line;
  for (size_t c = 0; c < values.size(); ++c) {
    std::string value = Shortened(values[c], widths[c]);
    std::string padding(std::max(0, widths[c] - DisplayWidth(value)), ' ');
    if (c > 0) line += kGap;
    line += table.columns[c].kind == ColumnKind::kText ? value + padding : padding + value;
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line + "\n";
}

std::vector<std::string> Titles(const Table& table) {
  std::vector<std::string> titles;
  for (const auto& column : table.columns) titles.push_back(TitleOf(column));
  return titles;
}

std::string RenderAligned(const Table& table, int width) {
  auto shown = ShownRows(table);
  std::vector<int> widths = NaturalWidths(table, shown);
  if (width > 0) FitWidths(table, width, &widths);
  std::string out = AlignedLine(table, Titles(table), widths);
  for (const auto& line : shown) out += AlignedLine(table, line, widths);
  for (const auto& note : table.notes) out += note + "\n";
  return out;
}

std::string MarkdownField(std::string text) {
  std::string out;
  for (char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string MarkdownLine(const std::vector<std::string>& values) {
  std::string line = "|";
  for (const auto& value : values) line += " " + MarkdownField(value) + " |";
  return line + "\n";
}

std::string RenderMarkdown(const Table& table) {
  std::string out = MarkdownLine(Titles(table)) + "|";
  for (const auto& column : table.columns) out += column.kind == ColumnKind::kText ? " --- |" : " ---: |";
  out += "\n";
  for (const auto& line : ShownRows(table)) out += MarkdownLine(line);
  if (!table.notes.empty()) out += "\n";
  for (const auto& note : table.notes) out += "- " + note + "\n";
  return out;
}

std::string RenderCsv(const Table& table) {
  std::string out;
  for (size_t c = 0; c < table.columns.size(); ++c) out += (c ? "," : "") + CsvField(table.columns[c].name);
  out += "\n";
  for (const auto& row : table.rows) {
    for (size_t c = 0; c < row.size(); ++c) out += (c ? "," : "") + CsvValue(row[c]);
    out += "\n";
  }
  return out;
}

}  // namespace

Result<OutputFormat> ParseOutputFormat(std::string_view name) {
  for (size_t i = 0; i < kFormatNames.size(); ++i) {
    if (name == kFormatNames[i]) return static_cast<OutputFormat>(i);
  }
  std::string near = NearestName(std::string(name), kFormatNames);
  return InvalidArgument("unknown format '" + std::string(name) + "': use table, csv, json or markdown" +
                         (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

const char* OutputFormatName(OutputFormat format) { return kFormatNames[static_cast<size_t>(format)].data(); }

std::string Render(const Table& table, OutputFormat format, int width) {
  CheckShape(table);
  switch (format) {
    case OutputFormat::kTable:
      return RenderAligned(table, width);
    case OutputFormat::kCsv:
      return RenderCsv(table);
    case OutputFormat::kJson:
      return TableToJson(table).dump(2) + "\n";
    case OutputFormat::kMarkdown:
      return RenderMarkdown(table);
  }
  throw std::invalid_argument("unknown output format");
}

std::vector<std::vector<std::string>> ShownRows(const Table& table) {
  std::vector<std::vector<std::string>> shown;
  for (const auto& row : table.rows) {
    auto& line = shown.emplace_back();
    for (size_t c = 0; c < row.size(); ++c) line.push_back(Shown(row[c], table.columns[c]));
  }
  return shown;
}

Json TableToJson(const Table& table) {
  CheckShape(table);
  Json out = {{table.name, Json::array()}, {"columns", Json::array()}, {"notes", table.notes}};
  for (const auto& column : table.columns) {
    out["columns"].push_back({{"name", column.name}, {"title", TitleOf(column)}, {"unit", column.unit}});
  }
  for (const auto& row : table.rows) {
    Json object = Json::object();
    for (size_t c = 0; c < row.size(); ++c) object[table.columns[c].name] = JsonValue(row[c]);
    out[table.name].push_back(std::move(object));
  }
  return out;
}

int DisplayWidth(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

std::string FormatQuantity(double value) {
  constexpr std::array<const char*, 7> kFactors = {"", "k", "M", "G", "T", "P", "E"};
  if (!std::isfinite(value)) return ShortestDouble(value);
  size_t factor = 0;
  double scaled = value;
  // 999.5 would print as 1e+03 with three digits, so it already belongs to the next factor.
  for (; std::abs(scaled) >= 999.5 && factor + 1 < kFactors.size(); ++factor) scaled /= 1000;
  const bool beyond = std::abs(scaled) >= 999.5;
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.3g%s", beyond ? value : scaled, beyond ? "" : kFactors[factor]);
  return buffer;
}

std::string CsvField(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

std::string ShortestDouble(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, end);
}

Json JsonNumber(double value) { return std::isfinite(value) ? Json(value) : Json(ShortestDouble(value)); }

std::optional<double> NumberFromJson(const Json& json) {
  if (json.is_number()) return json.get<double>();
  if (json == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (json == "inf") return std::numeric_limits<double>::infinity();
  if (json == "-inf") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

}  // namespace allometry::common
