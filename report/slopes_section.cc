#include <algorithm>
#include <cmath>

#include "analysis/axis_pair.h"
#include "analysis/tables.h"
#include "report/sections.h"

// Table 2 and Figures 2 and 3 of Tay et al. 2022: slopes, and each architecture beside the baseline.
namespace allometry::report {
namespace {

using analysis::ArchitectureSlopes;
using analysis::Axis;
using analysis::Interval;
using analysis::Slope;
using analysis::SlopeEstimate;
using analysis::SlopesResult;
using common::ColumnKind;
using common::Json;
using common::TableValue;

// What a row of the figure's data is.
constexpr const char* kSize = "size";
constexpr const char* kLine = "line";
constexpr const char* kLineBreak = "; ";  // in titles of panels

common::Table LineData(const Study& study, Axis y) {
  const char* title = y == Axis::kUpstream ? "upstream" : "downstream";
  return {.columns = {{"architecture", "", "", ColumnKind::kText},
                      {"kind", "", "", ColumnKind::kText},
                      {"size", "", "", ColumnKind::kText},
                      {"flops", FlopsTitle(study), "FLOP", ColumnKind::kQuantity},
                      {"quality", title, "", ColumnKind::kNumber, 4},
                      {"low", "one sd lower", "", ColumnKind::kNumber, 4},
                      {"high", "one sd higher", "", ColumnKind::kNumber, 4},
                      {"seeds", "", "", ColumnKind::kInteger},
                      {"panel", "", "", ColumnKind::kText}},
          .rows = {}};
}

// "α 0.512 ±0.034; curved": a line each. Of the flags those that change how the picture reads; Table 2 has all.
std::string LabelOf(const SlopeEstimate& estimate) {
  if (!estimate.alpha) return "no slope";
  const std::optional<Interval>& shown = estimate.seed_interval ? estimate.seed_interval : estimate.line_interval;
  std::string label = Format("α %.3f", *estimate.alpha);
  if (shown) label += Format(" ±%.3f", (shown->high - shown->low) / 2);
  if (!estimate.seed_interval && shown) label += " (line)";
  std::vector<std::string> flags;
  for (const char* flag : {"curved", "at chance"})
    if (estimate.HasFlag(flag)) flags.emplace_back(flag);
  return flags.empty() ? label : label + kLineBreak + Joined(flags, ", ");
}

// What stands above the panel of an architecture.
std::string PanelTitle(const ArchitectureSlopes& architecture, Axis y) {
  return architecture.architecture + kLineBreak + LabelOf(FindSlope(architecture, Axis::kFlops, y)->estimate);
}

// The line with equal weights goes through the mean of the size means.
void AddLine(const std::string& architecture, const Slope& slope, analysis::Transform transform,
             const std::string& panel, common::Table* data) {
  double x = 0, y = 0, low = INFINITY, high = -INFINITY;
  for (const analysis::SizePoint& point : slope.points) {
    x += point.x / static_cast<double>(slope.points.size());
    y += point.y / static_cast<double>(slope.points.size());
    low = std::min(low, point.x);
    high = std::max(high, point.x);
  }
  for (const double end : {low, high}) {
    const double fitted = y + *slope.estimate.alpha * (end - x);
    data->rows.push_back({architecture, kLine, "", ValueOfX(end, slope.x, transform), fitted, {}, {}, {}, panel});
  }
}

void AddArchitecture(const ArchitectureSlopes& architecture, const Slope& slope, analysis::Transform transform,
                     common::Table* data) {
  const std::string panel = PanelTitle(architecture, slope.y);
  for (const analysis::SizePoint& point : slope.points) {
    const double sd = point.y_sd.value_or(0);
    data->rows.push_back({architecture.architecture, kSize, point.size, ValueOfX(point.x, slope.x, transform), point.y,
                          point.y_sd ? TableValue(point.y - sd) : TableValue(),
                          point.y_sd ? TableValue(point.y + sd) : TableValue(), int64_t{point.seeds}, panel});
  }
  if (slope.estimate.alpha) AddLine(architecture.architecture, slope, transform, panel, data);
}

// The encoding of a transformed quality.
Json TransformedAxis(Axis y, analysis::Transform transform) {
  if (transform == analysis::Transform::kSemilog) return QualityAxis(AxisName(y));
  return LinearAxis("quality", y == Axis::kUpstream ? "−ln of the validation loss" : "−ln of 1 − D");
}

Json SizeMarks(const common::Table& data, const Json& color, const Json& shape) {
  Json bars = {{"transform", Json::array({Keep("kind", kSize)})},
               {"mark", {{"type", "rule"}, {"strokeWidth", 1.2}}},
               {"encoding",
                {{"y", {{"field", "low"}, {"type", "quantitative"}}}, {"y2", {{"field", "high"}}}, {"color", color}}}};
  Json points = {{"transform", Json::array({Keep("kind", kSize)})},
                 {"mark", {{"type", "point"}, {"filled", true}, {"size", 45}, {"opacity", 0.9}}},
                 {"encoding",
                  {{"color", color},
                   {"shape", shape},
                   {"tooltip", Tooltip(data, {"architecture", "size", "flops", "quality", "low", "high", "seeds"})}}}};
  Json lines = {{"transform", Json::array({Keep("kind", kLine)})},
                {"mark", {{"type", "line"}, {"strokeWidth", 1.5}}},
                {"encoding", {{"color", color}}}};
  return Json::array({std::move(lines), std::move(bars), std::move(points)});
}

// Encodings without a legend: the panel's title names the architecture.
Json Quiet(Json encoding) {
  encoding["legend"] = nullptr;
  return encoding;
}

// One panel: the baseline's rows, from all data, under those of the panel's architecture.
Json PanelView(const Study& study, const common::Table& data, Axis y, bool with_baseline) {
  const Json color = Quiet(study.palette.Color()), shape = Quiet(study.palette.Shape());
  Json layers = Json::array();
  if (with_baseline)
    for (Json layer : SizeMarks(data, color, shape)) {
      layer["data"] = {{"name", "data"}};
      layer["transform"].insert(layer["transform"].begin(), Keep("architecture", study.baseline));
      layers.push_back(std::move(layer));
    }
  for (Json& layer : SizeMarks(data, color, shape)) layers.push_back(std::move(layer));
  return {{"encoding",
           {{"x", LogAxis("flops", FlopsTitle(study), NumbersOf(data, "flops"))},
            {"y", WithRoom(TransformedAxis(y, study.slopes.request.transform), NumbersOf(data, "quality"))}}},
          {"layer", std::move(layers)}};
}

// The titles of the panels. Every architecture that is drawn has one but the baseline, which is in each; alone, it has
// its own.
std::vector<std::string> PanelsOf(const Study& study, Axis y) {
  std::vector<std::string> panels;
  std::string own;
  for (const ArchitectureSlopes& architecture : study.slopes.architectures) {
    if (FindSlope(architecture, Axis::kFlops, y)->points.empty()) continue;
    if (architecture.architecture == study.baseline)
      own = PanelTitle(architecture, y);
    else if (panels.size() < kMostPanels)
      panels.push_back(PanelTitle(architecture, y));
  }
  return panels.empty() ? std::vector{own} : panels;
}

Json PanelsView(const Study& study, const common::Table& data, Axis y) {
  const std::vector<std::string> panels = PanelsOf(study, y);
  const bool with_baseline = !panels.front().starts_with(study.baseline + kLineBreak);
  Json view = Panels("panel", panels, kThreeAbreast, PanelView(study, data, y, with_baseline));
  view["facet"]["header"] = {{"labelExpr", std::string("split(datum.value, '") + kLineBreak + "')"},
                             {"labelLimit", kThreeAbreast.width},
                             {"labelFontSize", 11}};
  return view;
}

std::string CaptionOf(const Study& study, size_t panels, const SlopeEstimate& baseline) {
  std::string caption =
      "Points are means over seeds, bars one standard deviation between seeds, lines the fits of "
      "Table 2, α with the half width of its interval.";
  if (study.selection.architectures.size() > 1)
    caption += " Black in every panel: " + study.baseline + ", " + LabelOf(baseline) + ".";
  if (panels + 1 < study.selection.architectures.size())
    caption += Format(" The first %.0f architectures only.", static_cast<double>(panels));
  return caption;
}

void AddFigure(const Study& study, Axis y, const std::string& number, Section* section) {
  Figure figure{.name = std::string("scaling_") + AxisName(y),
                .title = {},
                .caption = {},
                .data = LineData(study, y),
                .view = {}};
  SlopeEstimate baseline;
  for (const ArchitectureSlopes& architecture : study.slopes.architectures) {
    const Slope& slope = *FindSlope(architecture, Axis::kFlops, y);
    if (architecture.architecture == study.baseline) baseline = slope.estimate;
    if (slope.points.empty()) continue;
    AddArchitecture(architecture, slope, study.slopes.request.transform, &figure.data);
  }
  if (figure.data.rows.empty()) {
    section->text.push_back("No " + number + ": no cell has FLOPs and " + AxisName(y) + " quality.");
    return;
  }
  figure.title = number + ". " + Capitalised(AxisName(y)) + " quality against " +
                 FlopConventionName(study.request.slopes.flops) + " FLOPs, each architecture beside " + study.baseline;
  figure.view = PanelsView(study, figure.data, y);
  figure.caption = CaptionOf(study, PanelsOf(study, y).size(), baseline);
  section->figures.push_back(std::move(figure));
}

common::Column TextColumn(const char* name, const char* title = "") { return {name, title, "", ColumnKind::kText}; }

TableValue RangeText(const std::optional<Interval>& interval) {
  if (!interval) return {};
  return Format("%.3f to %.3f", interval->low, interval->high);
}

// Both intervals and the flags in words; Table 2 has room for one interval and letters.
common::Table IntervalsTable(const SlopesResult& slopes) {
  common::Table table{
      .name = "slope_intervals", .columns = {TextColumn("architecture"), TextColumn("slope")}, .rows = {}};
  table.columns.push_back({"alpha", "α", "", ColumnKind::kNumber, 3});
  table.columns.push_back(TextColumn("seed_interval", "seed interval"));
  table.columns.push_back(TextColumn("line_interval", "line interval"));
  table.columns.push_back({"sizes", "", "", ColumnKind::kInteger});
  table.columns.push_back({"cells", "", "", ColumnKind::kInteger});
  table.columns.push_back(TextColumn("flags"));
  for (const ArchitectureSlopes& architecture : slopes.architectures)
    for (const Slope& slope : architecture.slopes) {
      const SlopeEstimate& e = slope.estimate;
      if (slope.points.empty()) continue;
      std::string flags = Joined(e.flags, ", ");
      if (!e.refused.empty()) flags += (flags.empty() ? "" : ", ") + e.refused;
      table.rows.push_back({architecture.architecture, "α(" + analysis::AxisPairName({slope.x, slope.y}) + ")",
                            OrNothing(e.alpha), RangeText(e.seed_interval), RangeText(e.line_interval),
                            static_cast<int64_t>(slope.points.size()), int64_t{slope.cells}, flags});
    }
  return table;
}

}  // namespace

Section SlopesSection(const Study& study) {
  Section section{.name = "slopes", .title = "Slopes", .text = {}, .figures = {}, .tables = {}};
  SlopesResult shown = study.slopes;
  shown.left_out.clear();  // told once, at the end of the report
  section.tables.push_back({"Table 2. Slopes: a higher α scales better", analysis::ToTable(shown)});
  section.tables.back().table.name = "slopes";
  if (study.slopes.comparisons.empty())
    section.text.push_back("No differences: there is nothing to compare " + study.baseline + " with.");
  else
    section.tables.push_back({"Differences of slopes, first minus second", analysis::ComparisonTable(shown)});
  section.tables.push_back({"Both intervals of every slope", IntervalsTable(shown)});
  AddFigure(study, Axis::kUpstream, "Figure 2", &section);
  if (study.has_scores)
    AddFigure(study, Axis::kDownstream, "Figure 3", &section);
  else
    section.text.emplace_back("No Figure 3: no cell has scores.");
  return section;
}

}  // namespace allometry::report
