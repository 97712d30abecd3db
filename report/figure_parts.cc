#include "report/figure_parts.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "report/report.h"

namespace allometry::report {
namespace {

using common::Column;
using common::ColumnKind;
using common::Json;

// Okabe and Ito's, without the yellow that is lost on white, and a grey.
constexpr std::array kColors = {"#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"};
constexpr std::array kShapes = {"circle",        "square",         "triangle-up",   "diamond",
                                "triangle-down", "triangle-right", "triangle-left", "cross"};
constexpr double kLeastMargin = 1.2;       // of a logarithmic axis
constexpr double kOneTickMargin = 1.6;     // of one for a single value: wide enough to hold a tick
constexpr int kMostDecades = 5;            // that an axis labels
constexpr double kLargestPrefixed = 1e18;  // beyond, few know the prefixes
constexpr size_t kColorCount = kColors.size();

Json DashOf(size_t index) {
  const std::array dashes = {Json::array({1, 0}), Json::array({6, 3}), Json::array({2, 2}), Json::array({8, 3, 2, 3})};
  return dashes[index / kColorCount % dashes.size()];
}

const char* const kStyle = R"json({
  "background": "white",
  "padding": {"left": 5, "top": 5, "right": 18, "bottom": 5},
  "config": {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "view": {"stroke": null},
    "axis": {"gridColor": "#e8e8e8", "domainColor": "#999999", "tickColor": "#999999", "labelColor": "#333333",
             "titleColor": "#333333", "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12},
    "legend": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "symbolLimit": 40,
               "labelLimit": 140},
    "header": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
  }
})json";

// Powers of ten, every other one or fewer where there are many, and 2 and 5 times them where there are few.
std::vector<double> LogTicks(double low, double high) {
  const double decades = std::log10(high / low);
  const int step = std::max(1, static_cast<int>(std::ceil(decades / kMostDecades)));
  const std::vector<double> multiples = decades > 2.5 ? std::vector<double>{1} : std::vector<double>{1, 2, 5};
  std::vector<double> ticks;
  for (int exponent = static_cast<int>(std::floor(std::log10(low))); std::pow(10, exponent) <= high; exponent += step)
    for (const double multiple : multiples)
      if (const double tick = multiple * std::pow(10, exponent); tick >= low && tick <= high) ticks.push_back(tick);
  return ticks;
}

std::string FormatOf(const Column& column) { return column.kind == ColumnKind::kQuantity ? ".3s" : ".4~g"; }

bool IsNumber(const Column& column) {
  return column.kind == ColumnKind::kNumber || column.kind == ColumnKind::kQuantity ||
         column.kind == ColumnKind::kInteger;
}

const Column& ColumnNamed(const common::Table& data, const std::string& name) {
  return *std::ranges::find(data.columns, name, &Column::name);
}

}  // namespace

Palette::Palette(const std::vector<std::string>& architectures, const std::string& baseline) {
  if (std::ranges::find(architectures, baseline) != architectures.end()) names_.push_back(baseline);
  for (const std::string& name : architectures)
    if (name != baseline) names_.push_back(name);
  for (size_t i = 0; i < names_.size(); ++i) {
    colors_.push_back(kColors[i % kColorCount]);
    shapes_.push_back(kShapes[i % kShapes.size()]);
    dashes_.push_back(DashOf(i));
  }
}

Json Palette::Encoding(const std::vector<Json>& range) const {
  return {{"field", "architecture"},
          {"type", "nominal"},
          {"title", "architecture"},
          {"scale", {{"domain", names_}, {"range", range}}}};
}

Json LinearAxis(const std::string& field, const std::string& title) {
  return {{"field", field}, {"type", "quantitative"}, {"title", title}, {"scale", {{"zero", false}, {"padding", 8}}}};
}

Json PercentAxis(const std::string& field, const std::string& title) {
  Json axis = LinearAxis(field, title);
  axis["axis"] = {{"format", "~%"}};
  return axis;
}

Json LogAxis(const std::string& field, const std::string& title, std::span<const double> values) {
  Json axis = LinearAxis(field, title);
  axis["scale"] = {{"type", "log"}, {"nice", false}};
  axis["axis"] = {{"format", "~s"}};
  if (values.empty()) return axis;
  auto [low, high] = std::ranges::minmax(values);
  const double margin = high > low ? std::max(std::pow(high / low, kLogMargin), kLeastMargin) : kOneTickMargin;
  low /= margin;
  high *= margin;
  axis["scale"]["domain"] = Json::array({low, high});
  axis["axis"]["values"] = LogTicks(low, high);
  if (high > kLargestPrefixed) axis["axis"]["format"] = "~e";
  return axis;
}

Json FilledUnlessAtChance(const Palette& palette) {
  Json encoding = Json::parse(R"json({
    "fillOpacity": {"condition": {"test": {"field": "at_chance", "equal": true}, "value": 0.05}, "value": 0.75}
  })json");
  encoding["color"] = encoding["stroke"] = palette.Color();
  encoding["shape"] = palette.Shape();
  return encoding;
}

Json WithRoom(Json axis, std::span<const double> values) {
  if (values.empty() || std::ranges::min(values) < std::ranges::max(values)) return axis;
  const double room = std::max(0.1 * std::abs(values.front()), 0.01);
  axis["scale"]["domain"] = Json::array({values.front() - room, values.front() + room});
  return axis;
}

Json Nominal(const std::string& field) { return {{"field", field}, {"type", "nominal"}}; }

Json Panels(const std::string& column, const std::vector<std::string>& values, const PanelLayout& layout, Json panel) {
  panel["width"] = layout.width;
  panel["height"] = layout.height;
  return {{"transform", Json::array({{{"filter", {{"field", column}, {"oneOf", values}}}}})},
          {"facet", {{"field", column}, {"type", "nominal"}, {"title", nullptr}, {"sort", values}}},
          {"columns", layout.columns},
          {"spacing", 14},
          {"spec", std::move(panel)}};
}

Json Tooltip(const common::Table& data, const std::vector<std::string>& columns) {
  Json entries = Json::array();
  for (const std::string& name : columns) {
    const Column& column = ColumnNamed(data, name);
    Json entry = {{"field", name},
                  {"type", IsNumber(column) ? "quantitative" : "nominal"},
                  {"title", column.title.empty() ? name : column.title}};
    if (IsNumber(column) && column.kind != ColumnKind::kInteger) entry["format"] = FormatOf(column);
    entries.push_back(std::move(entry));
  }
  return entries;
}

Json Keep(const std::string& field, const Json& value) { return {{"filter", {{"field", field}, {"equal", value}}}}; }

Json Drop(const std::string& field, const Json& value) {
  return {{"filter", {{"not", {{"field", field}, {"equal", value}}}}}};
}

std::vector<double> NumbersOf(const common::Table& data, const std::string& column) {
  const auto index = std::ranges::find(data.columns, column, &Column::name) - data.columns.begin();
  std::vector<double> numbers;
  for (const auto& row : data.rows)
    if (const auto& value = row[static_cast<size_t>(index)]; const auto* number = std::get_if<double>(&value))
      numbers.push_back(*number);
    else if (const auto* whole = std::get_if<int64_t>(&value))
      numbers.push_back(static_cast<double>(*whole));
  return numbers;
}

Json Specification(const Figure& figure) {
  Json specification = Json::parse(kStyle);
  specification["$schema"] = "https://vega.github.io/schema/vega-lite/v5.json";
  specification["description"] = figure.title;
  // Named, so that a layer of every panel can read all rows.
  specification["data"] = {{"name", "data"}, {"values", common::TableToJson(figure.data)[figure.data.name]}};
  specification.update(figure.view);
  return specification;
}

}  // namespace allometry::report
