#include "analysis/answers_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using common::Json;

records::Table TwoThatCross() {
  records::Table table =
      Grid("steep", {.sizes = 4, .level = 10, .slope = 0.9}) + Grid("flat", {.sizes = 4, .level = 7.1, .slope = 0.5});
  for (records::Record& r : table) r.metrics["training_flops"] = 1e6 * r.metrics["forward_flops"];
  return table;
}

// No number may be left that JSON cannot hold: dump() would write it as null without a word.
void ExpectFinite(const Json& json) {
  if (json.is_number_float()) {
    EXPECT_TRUE(std::isfinite(json.get<double>()));
  }
  if (json.is_structured()) {
    for (const Json& part : json) ExpectFinite(part);
  }
}

TEST(AnswersJson, CrossoversHaveXAndItsValue) {
  const Json json = ToJson(Crossovers(TwoThatCross(), {}).value());
  ExpectFinite(json);
  const Json& c = json["crossovers"][0];
  EXPECT_EQ(c["verdict"], "observed");
  EXPECT_NEAR(c["at"][0]["x"].get<double>(), 7.25, 1e-9);
  EXPECT_NEAR(c["at"][0]["value"].get<double>() / std::pow(10, 7.25), 1, 1e-9);
  EXPECT_EQ(c["ahead_above"], "steep");
  EXPECT_EQ(json["x"], "flops");
}

TEST(AnswersJson, AMissingEndOfABandIsNull) {
  const records::Table table = Grid("a", {.level = 10}) + Grid("b", {.level = 12, .slope = 0.5001});
  const Json c = ToJson(Crossovers(table, {}).value())["crossovers"][0];
  EXPECT_EQ(c["verdict"], "no bounded crossover");
  EXPECT_TRUE(c["bands"].front()["low"].is_null());
  EXPECT_TRUE(c["bands"].back()["high"].is_null());
}

TEST(AnswersJson, RanksSuggestionsAndBacktests) {
  const records::Table table = TwoThatCross();
  const Json ranks = ToJson(Rank(table, {}).value());
  ExpectFinite(ranks);
  EXPECT_EQ(ranks["sizes"][0]["ranking"][0]["rank"], 1);
  EXPECT_EQ(ranks["agreements"].size(), 6u);
  const Json suggested = ToJson(Suggest(table, {.budget_flops = 1e15, .delta = 0.05}).value());
  ExpectFinite(suggested);
  EXPECT_FALSE(suggested["cells"].empty());
  EXPECT_LT(suggested["slopes"][0]["half_width_after"], suggested["slopes"][0]["half_width_now"]);
  EXPECT_EQ(suggested["power"].size(), 7u);
  const Json back = ToJson(Backtest(table, {}).value());
  ExpectFinite(back);
  EXPECT_EQ(back["rows"].size(), 14u);
  EXPECT_EQ(back["summaries"].size(), 7u);
}

}  // namespace
}  // namespace allometry::analysis
