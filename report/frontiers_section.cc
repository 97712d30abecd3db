#include <algorithm>
#include <cmath>

#include "analysis/pareto.h"
#include "analysis/tables.h"
#include "report/sections.h"

// Figure 1 of Tay et al. 2022: quality against cost, with the frontier.
namespace allometry::report {
namespace {

using analysis::ParetoPoint;
using analysis::ParetoResult;
using common::ColumnKind;
using common::Json;

constexpr double kMayBeOnFrontier = 0.05;          // less probable ones are left to the figure
constexpr double kNearest = 0.06;                  // of the axis: labels that come nearer to the last one are not drawn
constexpr size_t kLongestLabel = 16;               // bytes
constexpr int kLabelOffset = 9, kLetterWidth = 7;  // pixels

// Whether a text fits between the left edge of the plot and a point.
bool FitsLeftOf(const ParetoPoint& point, const ParetoResult& result, const std::string& text) {
  const double low = result.points.front().cost(), high = result.points.back().cost();
  const double share = high > low ? std::log(point.cost() / low) / std::log(high / low) : 0.5;
  const double room = kPlotWidth * (kLogMargin + share) / (1 + 2 * kLogMargin);
  return kLabelOffset + kLetterWidth * common::DisplayWidth(text) < room;
}

// The cells on the frontier by rising cost get their sizes written beside them, where they do not run together.
std::vector<std::string> LabelsOf(const ParetoResult& result) {
  std::vector<std::string> labels;
  const auto [worst, best] = std::ranges::minmax(result.points, {}, &ParetoPoint::quality);
  const double nearest = kNearest * (best.quality - worst.quality);
  double last = -INFINITY;
  for (const ParetoPoint& point : result.points) {
    const bool drawn = point.on_frontier && point.size.size() <= kLongestLabel && point.quality - last >= nearest &&
                       FitsLeftOf(point, result, point.size);
    labels.push_back(drawn ? point.size : "");
    if (drawn) last = point.quality;
  }
  return labels;
}

common::Table FrontierData(const Study& study, const ParetoResult& result) {
  common::Table data{.columns = {{"cell", "", "", ColumnKind::kText},
                                 {"architecture", "", "", ColumnKind::kText},
                                 {"size", "", "", ColumnKind::kText},
                                 {"flops", FlopsTitle(study), "FLOP", ColumnKind::kQuantity},
                                 {"quality", result.request.quality, "", ColumnKind::kNumber, 4},
                                 {"seeds", "", "", ColumnKind::kInteger},
                                 {"parameters", "", "", ColumnKind::kQuantity},
                                 {"on_frontier", "on the frontier", "", ColumnKind::kBoolean},
                                 {"probability", "probability of it", "", ColumnKind::kNumber, 3},
                                 {"at_chance", "at chance", "", ColumnKind::kBoolean},
                                 {"label", "", "", ColumnKind::kText}},
                     .rows = {}};
  const std::vector<std::string> labels = LabelsOf(result);
  for (size_t i = 0; i < result.points.size(); ++i) {
    const ParetoPoint& p = result.points[i];
    data.rows.push_back({p.cell, p.architecture, p.size, p.cost(), p.quality, p.seeds, OrNothing(p.parameters),
                         p.on_frontier, OrNothing(p.probability), p.at_chance, labels[i]});
  }
  return data;
}

// The smallest, the middle and the largest area, at round numbers.
std::vector<double> SizeLegend(const std::vector<double>& parameters) {
  if (parameters.empty()) return {};
  const auto [low, high] = std::ranges::minmax(parameters);
  std::vector<double> values;
  for (const double value : {low, std::sqrt(low * high), high}) {
    const double unit = std::pow(10, std::floor(std::log10(value)));
    const double rounded = std::round(value / unit) * unit;
    if (values.empty() || rounded != values.back()) values.push_back(rounded);
  }
  return values;
}

Json PointLayer(const Study& study, const common::Table& data) {
  Json layer = Json::parse(R"json({
    "params": [{"name": "highlight", "select": {"type": "point", "fields": ["architecture"]}, "bind": "legend"}],
    "mark": {"type": "point", "filled": true, "strokeWidth": 1.5},
    "encoding": {
      "size": {"field": "parameters", "type": "quantitative", "title": "parameters",
               "scale": {"type": "sqrt", "range": [25, 500]}, "legend": {"labelExpr": "format(datum.value, '~s')"}},
      "opacity": {"condition": {"param": "highlight", "value": 1}, "value": 0.12}
    }
  })json");
  layer["encoding"].update(FilledUnlessAtChance(study.palette));
  const std::vector<double> parameters = NumbersOf(data, "parameters");
  layer["encoding"]["size"]["legend"]["values"] = SizeLegend(parameters);
  if (parameters.empty()) layer["encoding"].erase("size");
  layer["encoding"]["tooltip"] =
      Tooltip(data, {"cell", "flops", "quality", "parameters", "seeds", "on_frontier", "probability", "at_chance"});
  return layer;
}

Json FrontierView(const Study& study, const common::Table& data, const std::string& quality) {
  Json line = {
      {"transform", Json::array({Keep("on_frontier", true)})},
      {"mark",
       {{"type", "line"}, {"interpolate", "step-after"}, {"color", "#888888"}, {"strokeDash", Json::array({5, 3})}}}};
  // A cell on the frontier has nothing above and left of it: there its size stands free.
  Json names = {{"transform", Json::array({Drop("label", "")})},
                {"mark",
                 {{"type", "text"},
                  {"align", "right"},
                  {"dx", -kLabelOffset},
                  {"dy", -kLabelOffset},
                  {"fontSize", 10},
                  {"color", "#333333"}}},
                {"encoding", {{"text", Nominal("label")}}}};
  return {{"width", kPlotWidth},
          {"height", kPlotHeight},
          {"encoding",
           {{"x", LogAxis("flops", FlopsTitle(study), NumbersOf(data, "flops"))},
            {"y", WithRoom(QualityAxis(quality), NumbersOf(data, "quality"))}}},
          {"layer", Json::array({std::move(line), PointLayer(study, data), std::move(names)})}};
}

std::string CaptionOf(const Study& study, const ParetoResult& result) {
  std::string caption =
      "Colour and shape are the architecture, area the parameters; the dashed line joins the cells "
      "that no other cell beats in both cost and quality. Means over seeds.";
  if (result.seed_sd) caption += Format(" Pooled standard deviation between seeds: %.3g.", *result.seed_sd);
  if (!result.no_probability.empty()) caption += " No probabilities: " + result.no_probability + ".";
  const bool chance = std::ranges::any_of(result.points, &ParetoPoint::at_chance);
  if (chance) caption += " Hollow: a score at chance is in it.";
  return caption;
}

Figure FrontierFigure(const Study& study, const ParetoResult& result, const std::string& title) {
  Figure figure{.name = "frontier_" + result.request.quality,
                .title = title,
                .caption = CaptionOf(study, result),
                .data = FrontierData(study, result),
                .view = {}};
  figure.view = FrontierView(study, figure.data, result.request.quality);
  return figure;
}

// The cells on the frontier, and those that may well be.
common::Table FrontierTable(ParetoResult result) {
  result.left_out.clear();  // told once, at the end of the report
  std::erase_if(result.points, [](const ParetoPoint& point) {
    return !point.on_frontier && point.probability.value_or(0) < kMayBeOnFrontier;
  });
  common::Table table = analysis::ToTable(result);
  table.name = "frontier_" + result.request.quality + "_cells";
  return table;
}

}  // namespace

Section FrontiersSection(const Study& study) {
  Section section{.name = "frontiers", .title = "Frontiers", .text = {}, .figures = {}, .tables = {}};
  const char* part = "a";
  for (const std::string& quality : QualitiesOf(study)) {
    const auto result = analysis::Pareto(study.table, {.quality = quality,
                                                       .flops = study.request.slopes.flops,
                                                       .tasks = study.request.slopes.tasks,
                                                       .seed = study.request.seed,
                                                       .draws = study.request.draws});
    if (!result) {
      section.text.push_back("No " + quality + " frontier: " + result.error().message + ".");
      continue;
    }
    const std::string what =
        Capitalised(quality) + " quality against " + FlopConventionName(study.request.slopes.flops) + " FLOPs";
    section.figures.push_back(FrontierFigure(study, *result, std::string("Figure 1") + part + ". " + what));
    section.tables.push_back({"On the frontier, or probably so: " + what, FrontierTable(*result)});
    part = "b";
  }
  if (!study.has_scores) section.text.emplace_back("No downstream frontier: no cell has scores.");
  return section;
}

}  // namespace allometry::report
