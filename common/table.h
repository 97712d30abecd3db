#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace allometry::common {

// How a reading verb prints: `--format table|csv|json|markdown`.
enum class OutputFormat { kTable, kCsv, kJson, kMarkdown };

Result<OutputFormat> ParseOutputFormat(std::string_view name);
const char* OutputFormatName(OutputFormat format);

// What a column holds. It decides alignment and how people see it; CSV and JSON always carry the full value.
enum class ColumnKind {
  kText,      // left-aligned; may be shortened with an ellipsis to fit a terminal
  kInteger,   // all digits
  kNumber,    // `digits` digits after the point
  kQuantity,  // three significant digits and a factor: 1.17M, 24.6G
  kBoolean,   // yes / no
};

struct Column {
  std::string name;   // snake_case key in CSV and JSON
  std::string title;  // short header for people; empty: the name
  std::string unit;   // "" if none; in JSON's column list
  ColumnKind kind = ColumnKind::kText;
  int digits = 3;  // kNumber only
};

// A missing value is std::monostate: "-" for people, empty in CSV, null in JSON.
using TableValue = std::variant<std::monostate, std::string, int64_t, double, bool>;

// One result table, made once and rendered in any format. Every row has as many values as there are columns.
struct Table {
  std::string name = "rows";  // key of the rows in JSON
  std::vector<Column> columns;
  std::vector<std::vector<TableValue>> rows;
  std::vector<std::string> notes;  // sentences below the table (also in JSON; not in CSV)
};

// The whole text, ending in a newline. `width` bounds the lines of kTable by shortening text columns, widest first (no
// column below 8 characters); 0 = unbounded. Throws std::invalid_argument if a row's length is not the columns' number.
std::string Render(const Table& table, OutputFormat format, int width = 80);

// The rows as people see them, a text a column.
std::vector<std::vector<std::string>> ShownRows(const Table& table);

// {"<name>": [{column: value, ...}], "columns": [{"name", "title", "unit"}], "notes": [...]}. Non-finite numbers are
// the strings "nan", "inf" and "-inf".
Json TableToJson(const Table& table);

// Code points, which is the width of everything these tables print.
int DisplayWidth(std::string_view text);

// 1.17M, 24.6G, 999, 0.5; from 1e21 on in scientific form.
std::string FormatQuantity(double value);

// One CSV field: quoted when it holds a comma, a quote or a line break (RFC 4180).
std::string CsvField(std::string_view text);

// Shortest text that reads back to the same double; "nan", "inf", "-inf".
std::string ShortestDouble(double value);

// A number for JSON: non-finite values as strings.
Json JsonNumber(double value);
// The number that JsonNumber wrote; absent for anything else.
std::optional<double> NumberFromJson(const Json& json);

}  // namespace allometry::common
