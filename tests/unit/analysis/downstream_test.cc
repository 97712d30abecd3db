#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "analysis/pareto.h"
#include "analysis/slopes.h"
#include "analysis/tables.h"
#include "study.h"

namespace allometry::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Definition = Downstream::Definition;

// Two cells without the tasks that Grid gives them.
records::Table Bare() {
  records::Table table = Grid("a", {.sizes = 3, .seeds = 1});
  for (records::Record& record : table) record.scores.clear();
  return table;
}

void ScoreAll(records::Record* record, double glue, double superglue, double squad) {
  ScoreBenchmark(record, GlueTasks(), glue);
  ScoreBenchmark(record, SuperGlueTasks(), superglue);
  ScoreBenchmark(record, SquadTasks(), squad);
}

records::Table Whole() {
  records::Table table = Bare();
  for (records::Record& record : table) ScoreAll(&record, 0.75, 0.5, 0.25);
  return table;
}

Downstream DownstreamOf(const records::Table& table, const std::vector<std::string>& tasks = {}) {
  return Slopes(table, {.tasks = tasks}).value().downstream;
}

double DOf(const records::Record& record, const Downstream& downstream) {
  return AxisValue(record, Axis::kDownstream, {.tasks = downstream.parts}).value.value();
}

TEST(DownstreamMeasure, IsTheMeanOfTheBenchmarksWhereTheyAreWhole) {
  const records::Table table = Whole();
  const Downstream d = DownstreamOf(table);
  EXPECT_EQ(d.definition, Definition::kBenchmarks);
  EXPECT_THAT(d.parts, ElementsAre("glue", "superglue", "squad"));
  EXPECT_EQ(d.note, "");
  EXPECT_DOUBLE_EQ(DOf(table[0], d), 0.5) << "and not the mean of the tasks, which is 0.603";
}

TEST(DownstreamMeasure, OtherTasksBesideWholeBenchmarksAreNotInIt) {
  records::Table table = Bare();
  for (records::Record& record : table) {
    ScoreBenchmark(&record, GlueTasks(), 0.75);
    Score(&record, "mine", 0.1);
    Score(&record, "glue_wnli", 0.2);
  }
  const Downstream d = DownstreamOf(table);
  EXPECT_THAT(d.parts, ElementsAre("glue"));
  EXPECT_EQ(d.note, "D is the mean of 1 of the study's 3 benchmarks; not in D: glue_wnli, mine");
  EXPECT_EQ(DOf(table[0], d), 0.75);
}

TEST(DownstreamMeasure, IsTheMeanOfTheTasksWhereABenchmarkIsThereInPart) {
  records::Table table = Whole();
  for (records::Record& record : table) {
    record.scores.erase("superglue_wic");
    record.scores["glue_rte"].in_average = false;
  }
  const Downstream d = DownstreamOf(table);
  EXPECT_EQ(d.definition, Definition::kTasks);
  EXPECT_EQ(d.parts.size(), 15u);
  EXPECT_EQ(d.note, "D is the mean of 15 tasks; superglue lacks superglue_wic; not in D: glue_rte");
  EXPECT_DOUBLE_EQ(DOf(table[0], d), (7 * 0.75 + 7 * 0.5 + 0.25) / 15);
}

TEST(DownstreamMeasure, AStudyWithoutBenchmarksHasTheMeanOfItsTasksAndNothingToSay) {
  const Downstream d = DownstreamOf(Grid("a", {}));
  EXPECT_EQ(d.definition, Definition::kTasks);
  EXPECT_THAT(d.parts, ElementsAre("gloss", "sense"));
  EXPECT_EQ(d.note, "");
}

TEST(DownstreamMeasure, IsOneDefinitionForAllCells) {
  records::Table table = Whole();
  table[0].scores.erase("glue_cola");  // has all of the tasks but one: its mean of tasks would be another measure
  table[1].scores.clear();
  table[1].finetune_state = records::CellState::kFailed;
  table[1].finetune_reason = "out of disk";
  const SlopesResult result = Slopes(table, {}).value();
  EXPECT_EQ(result.downstream.definition, Definition::kBenchmarks);
  EXPECT_EQ(FindSlope(result.architectures[0], Axis::kFlops, Axis::kDownstream)->cells, 1);
  ASSERT_EQ(result.left_out.size(), 2u);
  EXPECT_EQ(result.left_out[0].measure, "downstream");
  EXPECT_EQ(result.left_out[0].reason, "no score of glue_cola");
  EXPECT_EQ(result.left_out[1].reason, "fine-tuning failed: out of disk");
}

TEST(DownstreamMeasure, MayBeAskedForByTheNamesOfAverages) {
  const records::Table table = Whole();
  EXPECT_EQ(DOf(table[0], DownstreamOf(table, {"superglue"})), 0.5);
  EXPECT_DOUBLE_EQ(DOf(table[0], DownstreamOf(table, {"glue", "squad"})), 0.5);
  EXPECT_DOUBLE_EQ(DOf(table[0], DownstreamOf(table, {"tasks"})), (8 * 0.75 + 8 * 0.5 + 0.25) / 17);
  EXPECT_DOUBLE_EQ(DOf(table[0], DownstreamOf(table, {"glue_rte", "superglue"})), 0.625);
  EXPECT_EQ(DownstreamOf(table, {"glue"}).definition, Definition::kWanted);
  const std::string error = Slopes(Grid("a", {}), {.tasks = {"squad"}}).error().message;
  EXPECT_THAT(error, HasSubstr("no cell has a score of squad"));
  EXPECT_THAT(error, HasSubstr("gloss, sense"));
}

TEST(DownstreamMeasure, IsAtChanceWhereAWholeAverageIs) {
  records::Table table = Whole();
  table[0].scores["superglue_wsc"].at_chance = true;
  const auto at_chance = [&] {
    const SlopesResult result = Slopes(table, {}).value();
    return FindSlope(result.architectures[0], Axis::kFlops, Axis::kDownstream)->at_chance_cells;
  };
  EXPECT_THAT(at_chance(), ElementsAre());
  for (const BenchmarkTask& task : SuperGlueTasks()) table[0].scores[std::string(task.name)].at_chance = true;
  EXPECT_THAT(at_chance(), ElementsAre("study/a-z0-s0"));
}

TEST(DownstreamMeasure, AnAverageIsAQualityOfTheFrontier) {
  const records::Table table = Whole();
  EXPECT_EQ(Pareto(table, {.quality = "glue"}).value().points[0].quality, 0.75);
  EXPECT_EQ(Pareto(table, {.quality = "downstream"}).value().points[0].quality, 0.5);
  EXPECT_FALSE(Pareto(Bare(), {.quality = "glue"}).ok());
}

TEST(DownstreamMeasure, IsToldWithTheResults) {
  const common::Json slopes = ToJson(Slopes(Whole(), {}).value());
  EXPECT_EQ(slopes["downstream"]["definition"], "benchmarks");
  EXPECT_EQ(slopes["tasks"], (std::vector<std::string>{"glue", "superglue", "squad"}));
  EXPECT_EQ(ToJson(Pareto(Grid("a", {}), {}).value())["downstream"]["definition"], "tasks");
}

}  // namespace
}  // namespace allometry::analysis
