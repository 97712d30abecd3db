#include <algorithm>
#include <map>

#include "report/sections.h"

// Learning curves: loss by step, a line a cell.
namespace allometry::report {
namespace {

using common::ColumnKind;
using common::Json;
using records::Curve;

constexpr size_t kMostPoints = 30'000;  // of a figure: some megabytes
constexpr size_t kFewestPoints = 20;    // of a line
constexpr size_t kMostPanelSizes = 12;  // a panel each; with more there is one for all

std::map<std::string, const records::Record*> CellsByName(const records::Table& table) {
  std::map<std::string, const records::Record*> cells;
  for (const records::Record& record : table) cells.emplace(record.Name(), &record);
  return cells;
}

// The curves of a series that are lines.
std::vector<const Curve*> LinesOf(const Study& study, const std::string& series) {
  std::vector<const Curve*> lines;
  for (const Curve& curve : study.curves)
    if (curve.series == series && curve.steps.size() > 1) lines.push_back(&curve);
  return lines;
}

common::Table CurveData(const Study& study, const std::vector<const Curve*>& lines) {
  common::Table data{.columns = {{"cell", "", "", ColumnKind::kText},
                                 {"architecture", "", "", ColumnKind::kText},
                                 {"size", "", "", ColumnKind::kText},
                                 {"state", "", "", ColumnKind::kText},
                                 {"step", "", "", ColumnKind::kInteger},
                                 {"loss", "", "nats", ColumnKind::kNumber, 4}},
                     .rows = {}};
  const auto cells = CellsByName(study.table);
  const size_t points = std::clamp(kMostPoints / lines.size(), kFewestPoints, kCurvePoints);
  for (const Curve* line : lines) {
    const records::Record& cell = *cells.at(line->Name());
    const Curve curve = Thinned(*line, points);
    for (size_t i = 0; i < curve.steps.size(); ++i) {
      if (curve.steps[i] <= 0 || !(curve.values[i] > 0)) continue;  // neither has a logarithm
      data.rows.push_back({line->Name(), cell.architecture, analysis::SizeLabel(cell), CellStateName(cell.state),
                           curve.steps[i], curve.values[i]});
    }
  }
  return data;
}

std::vector<std::string> SizesOf(const common::Table& data) {
  std::vector<std::string> sizes;
  for (const auto& row : data.rows)
    if (const auto& size = std::get<std::string>(row[2]); std::ranges::find(sizes, size) == sizes.end())
      sizes.push_back(size);
  return sizes;
}

Json LinesView(const Study& study, const common::Table& data) {
  Json view = Json::parse(R"json({
    "params": [{"name": "highlight", "select": {"type": "point", "fields": ["architecture"]}, "bind": "legend"}],
    "mark": {"type": "line", "strokeWidth": 1.3},
    "encoding": {
      "y": {"field": "loss", "type": "quantitative", "title": "loss, nats", "scale": {"type": "log", "nice": false},
            "axis": {"format": "~g", "tickCount": 6}},
      "detail": {"field": "cell", "type": "nominal"},
      "opacity": {"condition": {"param": "highlight", "value": 0.85}, "value": 0.08}
    }
  })json");
  view["encoding"]["x"] = LogAxis("step", "step", NumbersOf(data, "step"));
  view["encoding"]["color"] = study.palette.Color();
  view["encoding"]["strokeDash"] = study.palette.Dash();
  view["encoding"]["tooltip"] = Tooltip(data, {"cell", "state", "step", "loss"});
  return view;
}

Json CurvesView(const Study& study, const common::Table& data) {
  const std::vector<std::string> sizes = SizesOf(data);
  Json lines = LinesView(study, data);
  if (sizes.size() > 1 && sizes.size() <= kMostPanelSizes) return Panels("size", sizes, kTwoAbreast, std::move(lines));
  lines["width"] = kPlotWidth;
  lines["height"] = kPlotHeight;
  return lines;
}

void AddSeries(const Study& study, const std::string& series, const std::string& name, const std::string& title,
               Section* section) {
  const std::vector<const Curve*> lines = LinesOf(study, series);
  if (lines.empty()) {
    section->text.push_back("No curves of " + series + ": no cell has two points of it.");
    return;
  }
  Figure figure{.name = name, .title = title, .caption = {}, .data = CurveData(study, lines), .view = {}};
  if (figure.data.rows.empty()) {
    section->text.push_back("No curves of " + series + ": its steps or values are not positive.");
    return;
  }
  figure.caption =
      "A line a cell, both axes logarithmic. Long curves are thinned: each point is the mean of its stretch.";
  figure.view = CurvesView(study, figure.data);
  section->figures.push_back(std::move(figure));
}

}  // namespace

Section CurvesSection(const Study& study) {
  Section section{.name = "learning_curves", .title = "Learning curves", .text = {}, .figures = {}, .tables = {}};
  AddSeries(study, kCurveSeries[0], "training_curves", "Training loss by step", &section);
  AddSeries(study, kCurveSeries[1], "validation_curves", "Validation loss by step", &section);
  return section;
}

}  // namespace allometry::report
