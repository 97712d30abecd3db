#include <algorithm>

#include "analysis/rank.h"
#include "report/sections.h"

// How the order of the architectures changes from size to size.
namespace allometry::report {
namespace {

using analysis::RankAgreement;
using analysis::RankedArchitecture;
using analysis::RankResult;
using analysis::SizeRanking;
using common::ColumnKind;
using common::Json;

constexpr size_t kMostSizes = 40, kMostArchitectures = 56;
constexpr int kStepWidth = 110, kMostWidth = 520, kRowHeight = 30, kLeastHeight = 120;

// Sizes at which there is an order.
std::vector<SizeRanking> RankedSizes(const RankResult& result) {
  std::vector<SizeRanking> sizes;
  for (const SizeRanking& size : result.sizes)
    if (size.ranking.size() > 1) sizes.push_back(size);
  return sizes;
}

common::Table RankData(const std::vector<SizeRanking>& sizes, const std::string& quality) {
  common::Table data{.columns = {{"size", "", "", ColumnKind::kText},
                                 {"architecture", "", "", ColumnKind::kText},
                                 {"place", "", "", ColumnKind::kInteger},
                                 {"rank", "", "", ColumnKind::kInteger},
                                 {"quality", quality, "", ColumnKind::kNumber, 4},
                                 {"probability_best", "probability of being best", "", ColumnKind::kNumber, 2},
                                 {"rank_low", "rank from", "", ColumnKind::kInteger},
                                 {"rank_high", "rank to", "", ColumnKind::kInteger},
                                 {"seeds", "", "", ColumnKind::kInteger},
                                 {"at_chance", "at chance", "", ColumnKind::kBoolean}},
                     .rows = {}};
  const auto whole = [](const std::optional<int>& v) {
    return v ? common::TableValue(int64_t{*v}) : common::TableValue();
  };
  for (const SizeRanking& size : sizes) {
    int64_t place = 0;  // unlike ranks, no two are equal, so that no line hides another
    for (const RankedArchitecture& r : size.ranking)
      data.rows.push_back({size.size, r.architecture, ++place, int64_t{r.rank}, r.quality,
                           OrNothing(r.probability_best), whole(r.rank_low), whole(r.rank_high), r.seeds, r.at_chance});
  }
  return data;
}

Json RankView(const Study& study, const common::Table& data, const std::vector<SizeRanking>& sizes) {
  std::vector<std::string> order;
  size_t most = 0;
  for (const SizeRanking& size : sizes) {
    order.push_back(size.size);
    most = std::max(most, size.ranking.size());
  }
  std::vector<size_t> places(most);
  for (size_t i = 0; i < most; ++i) places[i] = i + 1;
  Json x = {{"field", "size"},
            {"type", "ordinal"},
            {"sort", order},
            {"title", "size"},
            {"scale", {{"type", "point"}, {"padding", 0.4}}},
            {"axis", {{"labelAngle", 0}, {"grid", true}}}};
  if (order.size() > 6) x["axis"]["labelAngle"] = -40;
  Json y = {
      {"field", "place"},
      {"type", "quantitative"},
      {"title", "place (1 = best)"},
      {"scale", {{"domain", Json::array({0.5, static_cast<double>(most) + 0.5})}, {"reverse", true}, {"nice", false}}},
      {"axis", {{"values", places}, {"format", "d"}, {"grid", false}}}};
  Json lines = {{"mark", {{"type", "line"}, {"strokeWidth", 1.6}}}, {"encoding", {{"color", study.palette.Color()}}}};
  Json points = Json::parse(R"json({
    "params": [{"name": "highlight", "select": {"type": "point", "fields": ["architecture"]}, "bind": "legend"}],
    "mark": {"type": "point", "filled": true, "size": 90, "strokeWidth": 1.5},
    "encoding": {"opacity": {"condition": {"param": "highlight", "value": 1}, "value": 0.15}}
  })json");
  points["encoding"].update(FilledUnlessAtChance(study.palette));
  points["encoding"]["tooltip"] = Tooltip(data, {"architecture", "size", "rank", "rank_low", "rank_high",
                                                 "probability_best", "quality", "seeds", "at_chance"});
  return {{"width", std::min(kMostWidth, kStepWidth * static_cast<int>(order.size()))},
          {"height", std::max(kLeastHeight, kRowHeight * static_cast<int>(most))},
          {"encoding", {{"x", std::move(x)}, {"y", std::move(y)}}},
          {"layer", Json::array({std::move(lines), std::move(points)})}};
}

// Neighbouring sizes, and the first with the last.
common::Table AgreementTable(const RankResult& result, const std::vector<SizeRanking>& sizes) {
  common::Table table{.name = "agreement_" + result.request.quality,
                      .columns = {{"first", "size", "", ColumnKind::kText},
                                  {"second", "and", "", ColumnKind::kText},
                                  {"architectures", "", "", ColumnKind::kInteger},
                                  {"tau", "τ", "", ColumnKind::kNumber, 2},
                                  {"low", "from", "", ColumnKind::kNumber, 2},
                                  {"high", "to", "", ColumnKind::kNumber, 2}},
                      .rows = {}};
  const auto index_of = [&](const std::string& size) {
    return std::ranges::find(sizes, size, &SizeRanking::size) - sizes.begin();
  };
  const auto last = static_cast<std::ptrdiff_t>(sizes.size()) - 1;
  for (const RankAgreement& a : result.agreements) {
    const auto first = index_of(a.first), second = index_of(a.second);
    if (first > last || second > last) continue;
    if (second - first != 1 && !(first == 0 && second == last)) continue;
    table.rows.push_back(
        {a.first, a.second, int64_t{a.architectures}, OrNothing(a.tau), OrNothing(a.low), OrNothing(a.high)});
    if (!a.reason.empty()) table.notes.push_back(a.first + ", " + a.second + ": " + a.reason + ".");
  }
  table.notes.push_back(
      "τ is 1 for the same order and -1 for the reverse; from and to hold the percentiles of its draws.");
  return table;
}

void AddQuality(const Study& study, const std::string& quality, Section* section) {
  const auto result = analysis::Rank(study.table, {.quality = quality,
                                                   .tasks = study.request.slopes.tasks,
                                                   .confidence = study.request.slopes.confidence,
                                                   .seed = study.request.seed,
                                                   .draws = study.request.draws});
  if (!result) {
    section->text.push_back("No " + quality + " ranks: " + result.error().message + ".");
    return;
  }
  const std::vector<SizeRanking> sizes = RankedSizes(*result);
  if (sizes.empty()) {
    section->text.push_back("No " + quality + " ranks: no size has two architectures.");
    return;
  }
  if (sizes.size() > kMostSizes || study.selection.architectures.size() > kMostArchitectures) {
    section->text.push_back("No " + quality + " ranks: a figure takes " + std::to_string(kMostSizes) + " sizes and " +
                            std::to_string(kMostArchitectures) + " architectures, and here are " +
                            std::to_string(sizes.size()) + " and " +
                            std::to_string(study.selection.architectures.size()) + "; filter some.");
    return;
  }
  Figure figure{.name = "ranks_" + quality,
                .title = "Order of the architectures at each size, by " + quality + " quality",
                .caption = "A line an architecture, its place at each size.",
                .data = RankData(sizes, quality),
                .view = {}};
  if (!result->no_probability.empty()) figure.caption += " No probabilities: " + result->no_probability + ".";
  if (std::ranges::any_of(figure.data.rows, [](const auto& row) { return std::get<bool>(row.back()); }))
    figure.caption += " Hollow: a score at chance is in it.";
  figure.view = RankView(study, figure.data, sizes);
  section->figures.push_back(std::move(figure));
  if (sizes.size() > 1)
    section->tables.push_back({"Kendall's τ between sizes, " + quality, AgreementTable(*result, sizes)});
}

}  // namespace

Section RanksSection(const Study& study) {
  Section section{.name = "ranks", .title = "Rank changes", .text = {}, .figures = {}, .tables = {}};
  for (const std::string& quality : QualitiesOf(study)) AddQuality(study, quality, &section);
  return section;
}

}  // namespace allometry::report
