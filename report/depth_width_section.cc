#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "analysis/mean.h"
#include "report/sections.h"

// Figures 4 and 5 of Tay et al. 2022: quality as depth or width alone changes.
namespace allometry::report {
namespace {

using analysis::CellGroup;
using common::ColumnKind;
using common::Json;
using records::Record;

// What else makes a shape. Missing dimensions count as equal.
constexpr std::array kOtherDimensions = {"d_ff", "heads", "d_kv", "vocabulary"};

double MetricOr(const Record& record, const char* name, double otherwise) {
  const auto found = record.metrics.find(name);
  return found == record.metrics.end() ? otherwise : found->second;
}

// Layers of each stack; 0 if they differ between stacks or are not known.
double LayersOf(const Record& record) {
  const double encoder = MetricOr(record, "encoder_layers", MetricOr(record, "layers", 0));
  return MetricOr(record, "decoder_layers", encoder) == encoder ? encoder : 0;
}

// One architecture at one shape.
struct ShapedCell {
  const CellGroup* group = nullptr;
  double layers = 0, d_model = 0;
  std::vector<double> others;
};

// A figure's dimension: what it draws along x, and what tells its lines apart.
struct ShapeDimension {
  const char *figure, *word;
  const char *name, *title;         // of its column
  const char *other, *other_title;  // of the column that colours
  double ShapedCell::*along;
  double ShapedCell::*across;
};
constexpr const char* kLayersTitle = "layers of a stack";
constexpr ShapeDimension kDepth = {
    "Figure 4", "depth", "layers", kLayersTitle, "d_model", "d_model", &ShapedCell::layers, &ShapedCell::d_model};
constexpr ShapeDimension kWidth = {
    "Figure 5", "width", "d_model", "d_model", "layers", kLayersTitle, &ShapedCell::d_model, &ShapedCell::layers};

std::vector<ShapedCell> ShapedCells(const Study& study) {
  std::vector<ShapedCell> cells;
  for (const CellGroup& group : study.selection.groups) {
    const Record& record = *group.cells.front();
    ShapedCell cell{&group, LayersOf(record), MetricOr(record, "d_model", 0), {}};
    for (const char* name : kOtherDimensions) cell.others.push_back(MetricOr(record, name, 0));
    if (cell.layers > 0 && cell.d_model > 0) cells.push_back(std::move(cell));
  }
  return cells;
}

// The cells that belong to a line of two points at least: equal but for the dimension.
std::vector<ShapedCell> VaryingCells(const std::vector<ShapedCell>& cells, const ShapeDimension& dimension) {
  using Line = std::tuple<std::string, double, std::vector<double>>;
  const auto line_of = [&](const ShapedCell& c) { return Line{c.group->architecture, c.*dimension.across, c.others}; };
  std::map<Line, std::set<double>> values;
  for (const ShapedCell& cell : cells) values[line_of(cell)].insert(cell.*dimension.along);
  std::vector<ShapedCell> varying;
  for (const ShapedCell& cell : cells)
    if (values[line_of(cell)].size() > 1) varying.push_back(cell);
  return varying;
}

common::Table ShapeData(const Study& study, const std::vector<ShapedCell>& cells, const std::string& quality) {
  common::Table data{.columns = {{"architecture", "", "", ColumnKind::kText},
                                 {"size", "", "", ColumnKind::kText},
                                 {"layers", "", "", ColumnKind::kInteger},
                                 {"d_model", "", "", ColumnKind::kInteger},
                                 {"quality", quality, "", ColumnKind::kNumber, 4},
                                 {"quality_sd", "sd between seeds", "", ColumnKind::kNumber, 3},
                                 {"seeds", "", "", ColumnKind::kInteger},
                                 {"flops", FlopsTitle(study), "FLOP", ColumnKind::kQuantity}},
                     .rows = {}};
  for (const ShapedCell& cell : cells) {
    std::vector<double> qualities;
    for (const Record* record : cell.group->cells)
      if (const auto q = analysis::QualityValue(*record, quality, study.selection.downstream.parts); q.value)
        qualities.push_back(*q.value);
    if (qualities.empty()) continue;
    const auto flops = analysis::MetricValue(*cell.group->cells.front(), MetricOf(study.request.slopes.flops), true);
    data.rows.push_back({cell.group->architecture, cell.group->size, static_cast<int64_t>(cell.layers),
                         static_cast<int64_t>(cell.d_model), analysis::Mean(qualities),
                         OrNothing(analysis::SampleSd(qualities)), static_cast<int64_t>(qualities.size()),
                         OrNothing(flops.value)});
  }
  return data;
}

// The values of a column in rising order.
std::set<int64_t> ValuesOf(const common::Table& data, const std::string& column) {
  const auto index = std::ranges::find(data.columns, column, &common::Column::name) - data.columns.begin();
  std::set<int64_t> values;
  for (const auto& row : data.rows) values.insert(std::get<int64_t>(row[static_cast<size_t>(index)]));
  return values;
}

Json ShapeView(const Study& study, const common::Table& data, const ShapeDimension& dimension,
               const std::string& quality) {
  std::vector<std::string> panels;
  for (const std::string& name : study.palette.names()) {
    const auto drawn = [&](const auto& row) { return row[0] == common::TableValue(name); };
    if (panels.size() < kMostPanels && std::ranges::any_of(data.rows, drawn)) panels.push_back(name);
  }
  Json x = {{"field", dimension.name},
            {"type", "quantitative"},
            {"title", dimension.title},
            {"scale", {{"type", "log"}, {"base", 2}, {"nice", false}, {"padding", 10}}},
            {"axis", {{"values", ValuesOf(data, dimension.name)}, {"format", "d"}}}};
  const std::set<int64_t> values = ValuesOf(data, dimension.other);  // named twice, so that one legend serves both
  Json color = {
      {"field", dimension.other},
      {"type", "nominal"},
      {"title", dimension.other_title},
      {"scale", {{"domain", values}, {"scheme", {{"name", "viridis"}, {"extent", Json::array({0.85, 0.0})}}}}}};
  Json shape = {{"field", dimension.other},
                {"type", "nominal"},
                {"title", dimension.other_title},
                {"scale", {{"domain", values}}}};
  Json points = {{"mark", {{"type", "point"}, {"filled", true}, {"size", 50}}},
                 {"encoding",
                  {{"color", color},
                   {"shape", shape},
                   {"tooltip", Tooltip(data, {"architecture", "size", "layers", "d_model", "quality", "quality_sd",
                                              "seeds", "flops"})}}}};
  Json lines = {{"mark", {{"type", "line"}, {"strokeWidth", 1.5}}}, {"encoding", {{"color", color}}}};
  return Panels("architecture", panels, kTwoAbreast,
                {{"encoding", {{"x", std::move(x)}, {"y", QualityAxis(quality)}}},
                 {"layer", Json::array({std::move(lines), std::move(points)})}});
}

void AddFigures(const Study& study, const std::vector<ShapedCell>& all, const ShapeDimension& dimension,
                Section* section) {
  const std::vector<ShapedCell> cells = VaryingCells(all, dimension);
  if (cells.empty()) {
    section->text.push_back(std::string("No ") + dimension.figure + ": no two cells of an architecture differ in " +
                            dimension.word + " (" + dimension.name + ") alone.");
    return;
  }
  for (const std::string& quality : QualitiesOf(study)) {
    Figure figure{.name = std::string(dimension.word) + "_" + quality,
                  .title = {},
                  .caption = {},
                  .data = ShapeData(study, cells, quality),
                  .view = {}};
    if (figure.data.rows.empty()) {
      section->text.push_back(std::string("No ") + quality + " part of " + dimension.figure + ": no cell has it.");
      continue;
    }
    figure.title = std::string(dimension.figure) + ". " + Capitalised(quality) + " quality by " + dimension.word;
    figure.caption = std::string("A line joins cells that differ in ") + dimension.name + " alone. Means over seeds.";
    figure.view = ShapeView(study, figure.data, dimension, quality);
    section->figures.push_back(std::move(figure));
  }
}

}  // namespace

Section DepthAndWidthSection(const Study& study) {
  Section section{.name = "depth_and_width", .title = "Depth and width", .text = {}, .figures = {}, .tables = {}};
  const std::vector<ShapedCell> cells = ShapedCells(study);
  AddFigures(study, cells, kDepth, &section);
  AddFigures(study, cells, kWidth, &section);
  return section;
}

}  // namespace allometry::report
