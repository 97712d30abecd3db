#include "analysis/score_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "study.h"

namespace allometry::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Names(const ScoresResult& result) {
  std::vector<std::string> names;
  for (const ScoreColumn& column : result.columns) names.push_back(column.name);
  return names;
}

const ScoreValue& CellAt(const ScoresResult& result, size_t row, const std::string& name, bool average = true) {
  for (size_t c = 0; c < result.columns.size(); ++c)
    if (result.columns[c].name == name && result.columns[c].average == average) return result.rows.at(row).scores.at(c);
  throw std::out_of_range(name);
}

// Two sizes with two seeds each: SQuAD and MRPC, of which GLUE is not whole.
records::Table Study() {
  records::Table table;
  for (int i = 0; i < 4; ++i) {
    table.push_back(Cell("glu", i < 2 ? "z0" : "z1", static_cast<uint64_t>(i % 2), i < 2 ? 1e6 : 1e7, 4));
    ScoreBenchmark(&table.back(), SquadTasks(), 0.25 + 0.125 * i);
    ScoreBenchmark(&table.back(), GlueTasks(), 0.5);
    Score(&table.back(), "mine", 0.5);
    table.back().scores["glue_mrpc"].unparsed = i;
  }
  return table;
}

TEST(ScoreTable, HasTheTasksInTheBenchmarksOrderAndThenTheAverages) {
  const ScoresResult result = Scores(Study(), {}).value();
  EXPECT_THAT(Names(result), ElementsAre("glue_cola", "glue_sst2", "glue_mrpc", "glue_stsb", "glue_qqp", "glue_mnli",
                                         "glue_qnli", "glue_rte", "squad", "mine", "glue", "squad", "downstream"));
  ASSERT_EQ(result.rows.size(), 4u);
  EXPECT_EQ(result.rows[1].cell, "glu-z0-s1");
  EXPECT_EQ(CellAt(result, 1, "squad").value, 0.375);
  EXPECT_EQ(CellAt(result, 1, "downstream").value, (0.5 + 0.375) / 2);
  EXPECT_DOUBLE_EQ(*CellAt(result, 0, "glue").standard_error, 0.01 / std::sqrt(8));
  EXPECT_EQ(CellAt(result, 3, "glue_mrpc", false).unparsed, 0.003);
}

TEST(ScoreTable, MeansOverSeedsCarryTheirSpread) {
  const ScoresResult result = Scores(Study(), {.mean_over_seeds = true}).value();
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.rows[1].cell, "glu-z1");
  EXPECT_EQ(result.rows[1].seed, std::nullopt);
  const ScoreValue& squad = CellAt(result, 1, "squad");
  EXPECT_EQ(squad.value, (0.5 + 0.625) / 2);
  EXPECT_DOUBLE_EQ(*squad.spread, 0.125 / std::sqrt(2));
  EXPECT_EQ(squad.seeds, 2);
  EXPECT_EQ(squad.standard_error, std::nullopt) << "both seeds answered the same questions";
  EXPECT_DOUBLE_EQ(*CellAt(result, 1, "glue_mrpc", false).unparsed, 0.0025);
}

TEST(ScoreTable, ARowThatLacksAScoreHasNoAverageAndSaysWhy) {
  records::Table table = Study();
  table[0].scores.erase("glue_rte");
  table[3].scores.clear();
  const ScoresResult result = Scores(table, {}).value();
  ASSERT_EQ(result.rows.size(), 3u);
  EXPECT_EQ(CellAt(result, 0, "glue_rte", false).value, std::nullopt);
  EXPECT_EQ(CellAt(result, 0, "glue").value, std::nullopt);
  EXPECT_EQ(CellAt(result, 0, "squad").value, 0.25);
  ASSERT_EQ(result.left_out.size(), 3u);
  EXPECT_EQ(result.left_out[0].cell, "study/glu-z1-s1");
  EXPECT_EQ(result.left_out[1].measure, "glue");
  EXPECT_EQ(result.left_out[1].reason, "no score of glue_rte");
  const ScoresResult means = Scores(table, {.mean_over_seeds = true}).value();
  EXPECT_EQ(CellAt(means, 0, "glue").seeds, 1);
  EXPECT_EQ(CellAt(means, 0, "glue").spread, std::nullopt);
}

TEST(ScoreTable, FlagsCountTheTasks) {
  records::Table table = Study();
  table[1].scores["glue_rte"].at_chance = table[1].scores["squad"].at_chance = true;
  table[0].scores["glue_rte"].selected_on_test = true;
  const ScoresResult result = Scores(table, {.mean_over_seeds = true}).value();
  EXPECT_TRUE(CellAt(result, 0, "glue_rte", false).at_chance) << "in one of the seeds";
  EXPECT_EQ(CellAt(result, 0, "glue").tasks_at_chance, 1);
  EXPECT_FALSE(CellAt(result, 0, "glue").at_chance);
  EXPECT_TRUE(CellAt(result, 0, "squad").at_chance);
  EXPECT_TRUE(CellAt(result, 0, "glue").selected_on_test);
  EXPECT_FALSE(CellAt(result, 0, "squad").selected_on_test);
}

TEST(ScoreTable, SquadAndWnliCountAsAsked) {
  records::Table table = Study();
  for (records::Record& record : table) {
    Score(&record, "glue_wnli", 0.9);
    record.scores["glue_wnli"].metrics["accuracy"] = 0.95;
    record.scores["squad"].metrics["f1"] = 1;
  }
  const ScoresResult result = Scores(table, {.averages = {.with_wnli = true, .squad = SquadValue::kF1}}).value();
  EXPECT_DOUBLE_EQ(*CellAt(result, 0, "glue").value, (8 * 0.5 + 0.95) / 9);
  EXPECT_EQ(CellAt(result, 0, "squad").value, 1);
  EXPECT_DOUBLE_EQ(*CellAt(result, 0, "downstream").value, (*CellAt(result, 0, "glue").value + 1) / 2);
}

TEST(ScoreTable, WithoutAnyScoreThereIsNone) {
  records::Table table = Study();
  for (records::Record& record : table) {
    record.scores.clear();
    record.finetune_state = records::CellState::kDiverged;
    record.finetune_reason = "loss is nan";
  }
  EXPECT_THAT(Scores(table, {}).error().message, HasSubstr("fine-tuning diverged: loss is nan"));
}

}  // namespace
}  // namespace allometry::analysis
