#include "records/scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace allometry::records {
namespace {

using common::Json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

TEST(ScoresOfResult, ReadsEveryMember) {
  const TaskScores scores = ScoresOfResult(Json::parse(R"([
    {"task": "glue_mrpc", "benchmark": "glue", "in_average": false, "metric": "f1", "value": 0.75,
     "standard_error": 0.02, "metrics": {"f1": 0.8, "accuracy": 0.7}, "standard_errors": {"f1": 0.01, "accuracy": 0.03},
     "examples": 408, "majority": null, "at_chance": true, "unparsed": 3, "decoding": "rank",
     "split": "train_holdout", "selected_on_test": true}])"));
  const Score& score = scores.at("glue_mrpc");
  EXPECT_EQ(score.benchmark, "glue");
  EXPECT_FALSE(score.in_average);
  EXPECT_EQ(score.value, 0.75);
  EXPECT_EQ(score.standard_error, 0.02);
  EXPECT_EQ(score.majority, std::nullopt);
  EXPECT_THAT(score.metrics, ElementsAre(Pair("accuracy", 0.7), Pair("f1", 0.8)));
  EXPECT_THAT(score.standard_errors, ElementsAre(Pair("accuracy", 0.03), Pair("f1", 0.01)));
  EXPECT_EQ(score.examples, 408);
  EXPECT_TRUE(score.at_chance);
  EXPECT_EQ(score.unparsed, 3);
  EXPECT_EQ(score.decoding, "rank");
  EXPECT_EQ(score.split, "train_holdout");
  EXPECT_TRUE(score.selected_on_test);
}

TEST(ScoresOfResult, ATrainerMaySendTaskMetricAndValueAlone) {
  const TaskScores scores = ScoresOfResult(Json::parse(R"([{"task": "t", "metric": "accuracy", "value": 0.5}])"));
  const Score& score = scores.at("t");
  EXPECT_THAT(score.metrics, ElementsAre(Pair("accuracy", 0.5)));
  EXPECT_EQ(score.standard_error, std::nullopt);
  EXPECT_TRUE(score.in_average);
  EXPECT_FALSE(score.at_chance);
}

TEST(ScoresOfResult, EntriesOfOneTaskBringTheirMetrics) {
  const TaskScores scores = ScoresOfResult(Json::parse(R"([
    {"task": "mrpc", "metric": "f1", "value": 0.9, "standard_error": 0.01, "at_chance": true, "majority": 0.8},
    {"task": "mrpc", "metric": "accuracy", "value": 0.8, "majority": 0.6}])"));
  ASSERT_THAT(scores, SizeIs(1));
  const Score& score = scores.at("mrpc");
  EXPECT_DOUBLE_EQ(score.value, 0.85);
  EXPECT_DOUBLE_EQ(*score.majority, 0.7);
  EXPECT_EQ(score.standard_error, 0.01);
  EXPECT_FALSE(score.at_chance);
  EXPECT_THAT(score.metrics, ElementsAre(Pair("accuracy", 0.8), Pair("f1", 0.9)));
}

TEST(ScoresOfResult, WhatIsNoScoreIsNone) {
  EXPECT_THAT(ScoresOfResult(Json()), IsEmpty());
  EXPECT_THAT(ScoresOfResult(Json::parse(R"([1, {}, {"task": "t"}, {"value": 1}, {"task": 7, "value": 1}])")),
              IsEmpty());
  const TaskScores odd = ScoresOfResult(Json::parse(
      R"([{"task": "t", "value": "nan", "examples": "many", "metrics": [1], "at_chance": null, "split": {}}])"));
  EXPECT_TRUE(std::isnan(odd.at("t").value));
  EXPECT_EQ(odd.at("t").examples, 0);
}

}  // namespace
}  // namespace allometry::records
