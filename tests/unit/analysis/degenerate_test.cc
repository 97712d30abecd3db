// Every analysis of every table that has something wrong with it: an answer without a NaN in it, or a refusal that says
// why.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "analysis/answers_json.h"
#include "analysis/laws_json.h"
#include "analysis/score_table.h"
#include "analysis/tables.h"
#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using common::Json;
using records::Table;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct BadTable {
  std::string name;
  std::function<Table()> make;
};

// Two architectures that nothing is wrong with, for `change` to spoil.
BadTable Spoiled(const std::string& name, const std::function<void(records::Record*)>& change) {
  return {name, [change] {
            Table table = Grid("transformer", {.sizes = 8}) + Grid("glu", {.sizes = 8, .level = 9.5, .slope = 0.4});
            for (records::Record& record : table) {
              record.metrics["training_flops"] = 3e3 * record.metrics["forward_flops"];
              record.metrics["peak_memory_bytes"] = 10 * record.metrics["parameters"];
              change(&record);
            }
            return table;
          }};
}

BadTable WithMetric(const std::string& name, const char* metric, double value) {
  return Spoiled(name, [=](records::Record* r) { r->metrics[metric] = value; });
}

std::vector<BadTable> BadTables() {
  return {
      {"Empty", [] { return Table(); }},
      {"OneCell", [] { return Table{Cell("a", "z", 0, 1e6, 3)}; }},
      {"TwoCells",
       [] {
         return Table{Cell("a", "z", 0, 1e6, 3), Cell("b", "z", 0, 1e6, 3)};
       }},
      {"OneSize", [] { return Grid("a", {.sizes = 1}) + Grid("b", {.sizes = 1}); }},
      {"TwoSizesOneSeed", [] { return Grid("a", {.sizes = 2, .seeds = 1}) + Grid("b", {.sizes = 2, .seeds = 1}); }},
      {"EqualSeeds", [] { return Grid("a", {.noise = 0}) + Grid("b", {.noise = 0}); }},
      {"FlatLosses", [] { return Grid("a", {.slope = 0, .noise = 0}) + Grid("b", {.slope = 0, .noise = 0}); }},
      {"DuplicatedCells", [] { return Grid("a", {}) + Grid("a", {}) + Grid("b", {}) + Grid("b", {}); }},
      {"ManySeedsOfOneCell",
       [] {
         Table table;
         for (uint64_t seed = 0; seed < 3'000; ++seed) table.push_back(Cell("a", "z", seed % 1'500, 1e6, 3));
         return table;
       }},
      {"AThousandArchitectures",
       [] {
         Table table;
         for (int i = 0; i < 1'000; ++i) {
           const Table one = Grid("a" + std::to_string(i), {.slope = 0.4 + 0.0002 * i});
           table.insert(table.end(), one.begin(), one.end());
         }
         return table;
       }},
      Spoiled("NothingWrong", [](records::Record*) {}),
      Spoiled("NothingMeasured", [](records::Record* r) { r->metrics.clear(); }),
      Spoiled("NoneDone", [](records::Record* r) { r->state = records::CellState::kDiverged; }),
      Spoiled("EqualCosts",
              [](records::Record* r) {
                for (auto& [name, value] : r->metrics)
                  if (name != "validation_loss") value = 1e6;
              }),
      WithMetric("NanLosses", "validation_loss", kNan),
      WithMetric("InfiniteLosses", "validation_loss", kInfinity),
      WithMetric("NegativeLosses", "validation_loss", -1),
      WithMetric("EqualLosses", "validation_loss", 2),
      WithMetric("NanCosts", "forward_flops", kNan),
      WithMetric("NoCosts", "forward_flops", 0),
      WithMetric("NegativeCosts", "forward_flops", -5),
      WithMetric("NanMemory", "peak_memory_bytes", kNan),
      Spoiled("SomeNan",
              [](records::Record* r) {
                if (r->seed == 1) r->metrics["validation_loss"] = kNan;
              }),
      Spoiled("HugeCosts", [](records::Record* r) { r->metrics["forward_flops"] *= 1e295; }),
      Spoiled("TinyCosts", [](records::Record* r) { r->metrics["forward_flops"] *= 1e-315; }),
      Spoiled("HugeLosses", [](records::Record* r) { r->metrics["validation_loss"] *= 1e307; }),
      Spoiled("TinyLosses", [](records::Record* r) { r->metrics["validation_loss"] *= 1e-310; }),
      Spoiled("NanScores", [](records::Record* r) { Score(r, "gloss", kNan); }),
      Spoiled("PerfectScores", [](records::Record* r) { Score(r, "gloss", 1); }),
      Spoiled("ScoresAboveOne", [](records::Record* r) { Score(r, "gloss", 3); }),
      Spoiled("UnlikeDevices", [](records::Record* r) { r->device = "device " + std::to_string(r->seed); }),
  };
}

struct Analysis {
  std::string name;
  std::function<common::Result<Json>(const Table& table)> answer;
};

template <typename T>
common::Result<Json> AsJson(const common::Result<T>& result) {
  if (!result.ok()) return result.error();
  return ToJson(result.value());
}

SlopesRequest Loglog() { return {.transform = Transform::kLoglog}; }

std::vector<LawPoint> PointsOf(const Table& table) {
  std::vector<LawPoint> points;
  for (const records::Record& record : table) {
    if (record.metrics.contains("forward_flops") && record.metrics.contains("validation_loss"))
      points.push_back({record.metrics.at("forward_flops"), 1e9 * static_cast<double>(1 + points.size() % 3),
                        record.metrics.at("validation_loss")});
    if (points.size() == 200) break;
  }
  return points;
}

Analysis Fit(const std::string& name, LawForm form) {
  return {name, [form](const Table& table) { return AsJson(FitLaw(form, PointsOf(table), {.replicates = 20})); }};
}

std::vector<Analysis> Analyses() {
  return {
      {"Slopes", [](const Table& t) { return AsJson(Slopes(t, {.baseline = "*", .per_task = true})); }},
      {"SlopesOfLogarithms", [](const Table& t) { return AsJson(Slopes(t, Loglog())); }},
      {"Pareto", [](const Table& t) { return AsJson(Pareto(t, {.draws = 500})); }},
      {"ParetoOfScores", [](const Table& t) { return AsJson(Pareto(t, {.quality = "downstream", .draws = 500})); }},
      {"ParetoOfSeveralCosts",
       [](const Table& t) {
         return AsJson(Pareto(t, {.costs = {Cost::kFlops, Cost::kMemory, Cost::kSeconds}, .draws = 500}));
       }},
      {"ParetoWithAGivenSd", [](const Table& t) { return AsJson(Pareto(t, {.draws = 100, .sd = 0.1})); }},
      {"Crossovers", [](const Table& t) { return AsJson(Crossovers(t, {})); }},
      {"CrossoversOfOne", [](const Table& t) { return AsJson(Crossovers(t, {.first = "glu"})); }},
      {"CrossoversOfLogarithms", [](const Table& t) { return AsJson(Crossovers(t, {.slopes = Loglog()})); }},
      {"CrossoversOfUpstream",
       [](const Table& t) {
         return AsJson(Crossovers(t, {.axes = {Axis::kUpstream, Axis::kDownstream}}));
       }},
      {"Ranks", [](const Table& t) { return AsJson(Rank(t, {.draws = 100})); }},
      {"Backtest", [](const Table& t) { return AsJson(Backtest(t, {})); }},
      {"BacktestOfLogarithms", [](const Table& t) { return AsJson(Backtest(t, {.slopes = Loglog()})); }},
      {"Suggest", [](const Table& t) { return AsJson(Suggest(t, {.budget_flops = 1e16, .delta = 0.1})); }},
      {"SuggestByUpstream",
       [](const Table& t) {
         return AsJson(Suggest(t, {.axes = {Axis::kUpstream, Axis::kDownstream}, .budget_flops = 1e30, .delta = 0.1}));
       }},
      Fit("FitOfCompute", LawForm::kCompute),
      Fit("FitOfABreak", LawForm::kBroken),
      Fit("FitOfSizesAndTokens", LawForm::kParametersTokens),
  };
}

// Where a NaN or an infinity stands, as JSON has them; empty if there is none.
std::string NotFiniteAt(const Json& json, const std::string& path) {
  if (json.is_number_float() && !std::isfinite(json.get<double>())) return path;
  for (const char* word : {"nan", "inf", "-inf"})
    if (json == word) return path;
  if (!json.is_structured()) return "";
  for (const auto& [key, value] : json.items()) {
    const std::string found = NotFiniteAt(value, path + "/" + key);
    if (!found.empty()) return found;
  }
  return "";
}

class Degenerate : public ::testing::TestWithParam<Analysis> {};

TEST_P(Degenerate, TablesAreAnsweredWithFiniteNumbersOrRefusedWithAReason) {
  for (const BadTable& bad : BadTables()) {
    SCOPED_TRACE(bad.name);
    const common::Result<Json> answer = GetParam().answer(bad.make());
    if (answer.ok()) {
      EXPECT_EQ(NotFiniteAt(*answer, ""), "") << answer->dump().substr(0, 2'000);
    } else {
      EXPECT_NE(answer.error().message, "");
      EXPECT_NE(answer.error().code, common::ErrorCode::kInternal);
      EXPECT_NE(bad.name, "NothingWrong") << answer.error().message;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Degenerate, ::testing::ValuesIn(Analyses()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace allometry::analysis
