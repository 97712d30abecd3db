#include "cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace allometry::cli {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

v1::CellStatus Cell(const std::string& name, v1::RunState state) {
  v1::CellStatus cell;
  cell.set_cell("study/" + name);
  cell.set_state(state);
  cell.set_kind(v1::RUN_KIND_PRETRAIN);
  cell.set_steps(1600);
  cell.mutable_costs()->set_training_flops(100);
  cell.mutable_costs()->set_tokens(1600 * 2048);
  return cell;
}

v1::CellStatus Running(const std::string& name, int64_t step) {
  v1::CellStatus cell = Cell(name, v1::RUN_STATE_RUNNING);
  cell.set_step(step);
  cell.set_loss(5.2134);
  cell.set_tokens_per_second(20'480);
  cell.set_attempt(1);
  cell.set_worker("local");
  return cell;
}

TEST(Progress, ReportsChangesOnceAndNotEverySteps) {
  Progress progress;
  EXPECT_EQ(progress.Apply(Cell("a", v1::RUN_STATE_PENDING)), std::nullopt);
  EXPECT_EQ(progress.Apply(Running("a", 0)), "a runs on local");
  EXPECT_EQ(progress.Apply(Running("a", 10)), std::nullopt);
  v1::CellStatus done = Cell("a", v1::RUN_STATE_DONE);
  done.set_result_json(R"({"metrics":{"validation_loss":4.25,"text_loss":5.0,"unigram_loss":5.5},"scores":[]})");
  EXPECT_EQ(progress.Apply(done), "a done: loss 4.250, text 5.000 against unigram 5.500");
  EXPECT_EQ(progress.Apply(done), std::nullopt);
}

TEST(Progress, ReportsScoresRetriesAndFailures) {
  Progress progress;
  v1::CellStatus scored = Cell("b-ft", v1::RUN_STATE_DONE);
  scored.set_result_json(R"({"scores":[{"task":"pos","value":0.8125},{"task":"wic","value":0.5,"at_chance":true}]})");
  EXPECT_EQ(progress.Apply(scored), "b-ft done: pos 0.812, wic 0.500 (at chance)");
  v1::CellStatus many = Cell("m-ft", v1::RUN_STATE_DONE);
  many.set_result_json(R"({"scores":[{"task":"squad","value":0.5,"metrics":{"exact_match":0.25,"f1":0.75}},
      {"task":"a","value":0.5,"at_chance":true},{"task":"b","value":0.5},{"task":"c","value":0.5},
      {"task":"glue_rte","value":0.5}]})");
  EXPECT_EQ(progress.Apply(many), "m-ft done: squad 0.500, 5 tasks (1 at chance)");
  progress.Apply(Running("c", 5));
  v1::CellStatus again = Cell("c", v1::RUN_STATE_PENDING);
  again.set_error("signal 9\nmore");
  EXPECT_EQ(progress.Apply(again), "c waits again: signal 9");
  v1::CellStatus second = Running("c", 5);
  second.set_attempt(2);
  EXPECT_EQ(progress.Apply(second), "c runs on local, attempt 2");
  v1::CellStatus failed = Cell("c", v1::RUN_STATE_FAILED);
  failed.set_error("no text");
  EXPECT_EQ(progress.Apply(failed), "c failed: no text");
}

TEST(Progress, SurvivesResultsThatAreNoResults) {
  Progress progress;
  for (const char* text : {"", "[]", "{\"scores\":[1]}", "{\"metrics\":{\"validation_loss\":\"nan\"}}", "{"}) {
    v1::CellStatus done = Cell(std::string("x") + text, v1::RUN_STATE_DONE);
    done.set_result_json(text);
    EXPECT_TRUE(progress.Apply(done).has_value());
  }
}

TEST(Progress, DrawsBarsTotalsAndReasonsWithinTheWidth) {
  Progress progress;
  v1::Sweep sweep;
  sweep.set_name("study");
  sweep.set_cells(30);
  sweep.set_done(1);
  sweep.set_running(20);
  sweep.set_pending(9);
  progress.Apply(sweep);
  for (int i = 0; i < 20; ++i) progress.Apply(Running("a-cell-with-a-rather-long-name-" + std::to_string(i), 800));
  for (int i = 0; i < 9; ++i) {
    v1::CellStatus waiting = Cell("w" + std::to_string(i), v1::RUN_STATE_PENDING);
    waiting.set_waiting(i < 8 ? v1::WAIT_REASON_READY : v1::WAIT_REASON_PARENT_PENDING);
    progress.Apply(waiting);
  }
  for (int width : {80, 120, 40}) {
    const auto lines = progress.Lines(10, width, 16);
    EXPECT_THAT(lines, SizeIs(1 + 16 + 1 + 2));
    EXPECT_THAT(lines, Each(SizeIs(::testing::Le(width))));
  }
  const auto lines = progress.Lines(10, 80, 16);
  EXPECT_THAT(lines[0], HasSubstr("1/30 done, 20 running, 9 waiting, 0 failed"));
  EXPECT_THAT(lines[1], AllOf(HasSubstr("[######......]"), HasSubstr("800/1600"), HasSubstr("5.213"),
                              HasSubstr("20.5k tok/s"), HasSubstr("1:20")));  // 800 steps of 2,048 tokens
  EXPECT_THAT(lines, Contains("and 4 more running"));
  EXPECT_THAT(lines, Contains("8 wait for a free slot"));
  EXPECT_THAT(lines, Contains("1 waits for the runs they build on"));
}

TEST(Progress, PutsBarsBelowEachOther) {
  Progress progress;
  progress.Apply(Running("glu-s0", 800));
  v1::CellStatus starts = Running("transformer-s0-ft", 0);
  starts.set_tokens_per_second(0);
  progress.Apply(starts);
  const auto lines = progress.Lines(10, 80, 4);
  EXPECT_THAT(lines[1], ::testing::StartsWith("glu-s0            [######......]  800/1600 loss"));
  EXPECT_THAT(lines[2], ::testing::StartsWith("transformer-s0-ft [............]    0/1600"));
}

TEST(Progress, SaysTheTimeLeftUntilTheSweepEnds) {
  Progress progress;
  v1::Sweep sweep;
  progress.Apply(sweep);
  progress.Apply(Cell("a", v1::RUN_STATE_PENDING));
  EXPECT_THAT(progress.Lines(1, 80, 4)[0], HasSubstr("; 0:01, left -"));
  progress.Apply(Running("a", 400));  // of 1,600 steps, ten a second
  EXPECT_THAT(progress.Lines(42, 80, 4)[0], HasSubstr("; 0:42, left 2:00"));
  sweep.set_state(v1::SWEEP_STATE_FINISHED);
  progress.Apply(sweep);
  EXPECT_THAT(progress.Lines(160, 80, 4)[0], ::testing::EndsWith("; 2:40"));
}

TEST(Progress, EndsWithTheSweep) {
  Progress progress;
  v1::Sweep sweep;
  sweep.set_cells(2);
  sweep.set_done(2);
  progress.Apply(sweep);
  EXPECT_FALSE(progress.Ended());
  sweep.set_state(v1::SWEEP_STATE_FINISHED);
  progress.Apply(sweep);
  EXPECT_TRUE(progress.Ended());
  EXPECT_TRUE(progress.Succeeded());
  sweep.set_done(1);
  progress.Apply(sweep);
  EXPECT_FALSE(progress.Succeeded());
}

}  // namespace
}  // namespace allometry::cli
