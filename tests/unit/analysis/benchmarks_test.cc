#include "analysis/benchmarks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/json.h"

namespace allometry::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

records::TaskScores AllScores(double value) {
  records::TaskScores scores;
  for (const auto tasks : {GlueTasks(), SuperGlueTasks(), SquadTasks()}) {
    for (const BenchmarkTask& task : tasks) {
      records::Score& score = scores[std::string(task.name)];
      score.value = value;
      score.standard_error = 0.02;
      for (const std::string_view metric : task.metrics) {
        score.metrics[std::string(metric)] = value;
        score.standard_errors[std::string(metric)] = 0.03;
      }
    }
  }
  return scores;
}

TEST(Averages, ATaskWithTwoMetricsCountsOnce) {
  records::TaskScores scores = AllScores(0);
  scores["glue_cola"].metrics["matthews"] = 0.8;
  scores["glue_mnli"].metrics["matched_accuracy"] = 0.4;  // half of MNLI
  scores["superglue_multirc"].metrics["exact_match"] = 0.6;
  scores["squad"].metrics["f1"] = 0.5;
  const BenchmarkAverages averages = AverageScores(scores);
  EXPECT_DOUBLE_EQ(*averages.glue.value, (0.8 + 0.2) / 8);
  EXPECT_DOUBLE_EQ(*averages.superglue.value, 0.3 / 8);
  EXPECT_DOUBLE_EQ(*averages.squad.value, 0.25);
  EXPECT_DOUBLE_EQ(*averages.overall.value, (0.125 + 0.0375 + 0.25) / 3) << "of benchmarks, not of tasks";
  EXPECT_DOUBLE_EQ(*averages.tasks.value, (0.8 + 0.2 + 0.3 + 0.25) / 17);
  EXPECT_THAT(averages.tasks.missing, IsEmpty());
}

TEST(Averages, WnliIsLeftOutUnlessAskedFor) {
  records::TaskScores scores = AllScores(0);
  scores["glue_wnli"].metrics["accuracy"] = 0.9;
  EXPECT_EQ(AverageScores(scores).glue.value, 0);
  EXPECT_FALSE(EntersAverages("glue_wnli"));
  const BenchmarkAverages with = AverageScores(scores, {.with_wnli = true});
  EXPECT_DOUBLE_EQ(*with.glue.value, 0.1);
  EXPECT_DOUBLE_EQ(*with.tasks.value, 0.05) << "of eighteen";
  scores.erase("glue_wnli");
  EXPECT_TRUE(AverageScores(scores).glue.value.has_value());
  EXPECT_THAT(AverageScores(scores, {.with_wnli = true}).glue.missing, ElementsAre("glue_wnli"));
}

TEST(Averages, SquadMayBeEitherScore) {
  records::TaskScores scores = AllScores(0.5);
  scores["squad"].metrics = {{"exact_match", 0.6}, {"f1", 0.8}};
  EXPECT_DOUBLE_EQ(*AverageScores(scores).squad.value, 0.7);
  EXPECT_EQ(AverageScores(scores).squad.standard_error, 0.02);
  const Average f1 = AverageScores(scores, {.squad = SquadValue::kF1}).squad;
  EXPECT_EQ(f1.value, 0.8);
  EXPECT_EQ(f1.standard_error, 0.03) << "of the metric, not of the mean of both";
  EXPECT_EQ(AverageScores(scores, {.squad = SquadValue::kExactMatch}).squad.value, 0.6);
}

TEST(Averages, AreAbsentWhenAnythingIsMissing) {
  records::TaskScores scores = AllScores(0.5);
  scores["superglue_cb"].metrics.erase("f1_macro");
  scores.erase("superglue_record");
  scores["superglue_wic"].metrics["accuracy"] = std::nan("");
  const BenchmarkAverages averages = AverageScores(scores);
  EXPECT_EQ(averages.glue.value, 0.5);
  EXPECT_EQ(averages.superglue.value, std::nullopt) << "half of a task is no task";
  EXPECT_EQ(averages.superglue.standard_error, std::nullopt);
  EXPECT_EQ(averages.superglue.scored, 7);
  EXPECT_EQ(averages.overall.value, std::nullopt);
  EXPECT_EQ(averages.tasks.value, std::nullopt);
  EXPECT_THAT(averages.tasks.missing,
              ElementsAre("superglue_cb f1_macro", "superglue_record", "superglue_wic accuracy"));
  EXPECT_THAT(AverageScores({}).tasks.missing, SizeIs(17));
}

TEST(Averages, OtherTasksAndMetricsEnterNone) {
  records::TaskScores scores = AllScores(0.5);
  scores["wordnet_pos"].metrics["accuracy"] = 1;
  scores["glue_cola"].metrics["accuracy"] = 1;
  EXPECT_EQ(AverageScores(scores).tasks.value, 0.5);
}

TEST(Averages, TheirErrorIsThatOfIndependentTasks) {
  records::TaskScores scores = AllScores(0.5);
  const double of_eight = 0.02 / std::sqrt(8), of_one = 0.02;
  const BenchmarkAverages averages = AverageScores(scores);
  EXPECT_DOUBLE_EQ(*averages.glue.standard_error, of_eight);
  EXPECT_DOUBLE_EQ(*averages.tasks.standard_error, 0.02 / std::sqrt(17));
  EXPECT_DOUBLE_EQ(*averages.overall.standard_error, std::sqrt(2 * of_eight * of_eight + of_one * of_one) / 3);
  scores["glue_rte"].standard_error.reset();
  EXPECT_EQ(AverageScores(scores).glue.standard_error, std::nullopt) << "not known is not zero";
  EXPECT_EQ(AverageScores(scores).glue.value, 0.5);
}

TEST(Averages, AreAtChanceWhenAllOfTheirTasksAre) {
  records::TaskScores scores = AllScores(0.5);
  for (const BenchmarkTask& task : GlueTasks()) scores[std::string(task.name)].at_chance = true;
  scores["superglue_wic"].at_chance = scores["superglue_wic"].selected_on_test = true;
  const BenchmarkAverages averages = AverageScores(scores);
  EXPECT_TRUE(averages.glue.AtChance());
  EXPECT_FALSE(averages.superglue.AtChance());
  EXPECT_EQ(averages.superglue.at_chance, 1);
  EXPECT_TRUE(averages.superglue.selected_on_test);
  EXPECT_FALSE(averages.glue.selected_on_test);
  EXPECT_FALSE(averages.overall.AtChance());
  EXPECT_EQ(averages.overall.at_chance, 9);
}

TEST(Averages, AnAverageGoesBeforeATaskOfItsNameWhenItIsThere) {
  records::TaskScores scores = AllScores(0.5);
  scores["squad"].value = 0.9;  // not what its metrics come to
  EXPECT_EQ(MeanOfParts(scores, {{"squad"}}).value, 0.5);
  EXPECT_EQ(MeanOfParts(scores, {{"squad"}}, {.squad = SquadValue::kF1}).value, 0.5);
  scores["squad"].metrics.erase("f1");
  EXPECT_EQ(MeanOfParts(scores, {{"squad"}}).value, 0.9) << "as its trainer reported it";
  EXPECT_EQ(MeanOfParts(scores, {{"glue", "squad"}}).value, (0.5 + 0.9) / 2);
  EXPECT_THAT(MeanOfParts(scores, {{"other", "glue"}}).missing, ElementsAre("other"));
}

TEST(Averages, TasksStandInTheBenchmarksOrder) {
  EXPECT_LT(TaskOrder("glue_cola"), TaskOrder("glue_sst2"));
  EXPECT_LT(TaskOrder("glue_wnli"), TaskOrder("superglue_boolq"));
  EXPECT_LT(TaskOrder("superglue_wsc"), TaskOrder("squad"));
  EXPECT_LT(TaskOrder("squad"), TaskOrder("wordnet_pos"));
  EXPECT_EQ(TaskOrder("wordnet_pos"), TaskOrder("mine"));
}

// Against tests/parity/metrics_cases.py, which averages exact fractions and knows nothing of this code.
TEST(Averages, AgreeWithASecondImplementation) {
  const auto cases = common::ReadJsonFile(ALLOMETRY_SOURCE_DIR "/tests/unit/trainer_data/metrics_cases.json");
  ASSERT_TRUE(cases.ok());
  for (const common::Json& c : cases->at("averages")) {
    records::TaskScores scores;
    for (const common::Json& s : c.at("scores"))
      scores[s.at(0).get<std::string>()].metrics[s.at(1).get<std::string>()] = s.at(2).get<double>();
    AverageOptions options = {.with_wnli = c.at("with_wnli").get<bool>()};
    if (c.at("squad") == "exact_match") options.squad = SquadValue::kExactMatch;
    if (c.at("squad") == "f1") options.squad = SquadValue::kF1;
    const BenchmarkAverages averages = AverageScores(scores, options);
    const auto expect = [&](const Average& average, const char* name) {
      const common::Json& expected = c.at("expected").at(name);
      ASSERT_EQ(average.value.has_value(), !expected.is_null()) << name << " of " << c.dump();
      if (average.value) {
        EXPECT_NEAR(*average.value, expected.get<double>(), 1e-12) << name << " of " << c.dump();
      }
    };
    expect(averages.glue, "glue");
    expect(averages.superglue, "super_glue");
    expect(averages.squad, "squad");
    expect(averages.overall, "overall");
    expect(averages.tasks, "tasks");
  }
}

}  // namespace
}  // namespace allometry::analysis
