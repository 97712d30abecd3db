#include "cli/time_left.h"

#include <gtest/gtest.h>

#include <cmath>

namespace allometry::cli {
namespace {

constexpr int kSteps = 100;

// A grid on a machine where a step lasts speed x sqrt(FLOPs) seconds.
class Grid {
 public:
  v1::CellStatus& Add(const std::string& name, const std::string& architecture, double flops, double speed = 0.01) {
    v1::CellStatus& cell = cells_[name];
    cell.set_cell("s/" + name);
    cell.set_architecture(architecture);
    cell.set_kind(v1::RUN_KIND_PRETRAIN);
    cell.set_state(v1::RUN_STATE_PENDING);
    cell.set_steps(kSteps);
    cell.mutable_costs()->set_training_flops(flops * kSteps);
    cell.mutable_costs()->set_tokens(1000 * kSteps);
    seconds_[name] = kSteps * speed * std::sqrt(flops);
    return cell;
  }

  void Finish(const std::string& name, int64_t attempts = 1) {
    v1::CellStatus& cell = cells_.at(name);
    cell.set_state(v1::RUN_STATE_DONE);
    cell.set_attempt(attempts);
    cell.set_started_unix_ms(1'000'000);
    cell.set_finished_unix_ms(1'000'000 + std::llround(1000 * seconds_.at(name)));
  }

  void Run(const std::string& name, double fraction) {
    v1::CellStatus& cell = cells_.at(name);
    cell.set_state(v1::RUN_STATE_RUNNING);
    cell.set_step(std::llround(fraction * kSteps));
    cell.set_tokens_per_second(cell.costs().tokens() / seconds_.at(name));
  }

  double Left() const { return EstimateSecondsLeft(cells_).value_or(-1); }
  double Seconds(const std::string& name) const { return seconds_.at(name); }

 private:
  std::map<std::string, v1::CellStatus> cells_;
  std::map<std::string, double> seconds_;
};

TEST(TimeLeft, IsNotKnownBeforeACellHasShownItsSpeed) {
  Grid grid;
  EXPECT_EQ(grid.Left(), -1);
  grid.Add("a", "glu", 1e4);
  EXPECT_EQ(grid.Left(), -1);
  grid.Add("b", "glu", 1e4);
  grid.Finish("b");
  EXPECT_EQ(grid.Left(), -1) << "nothing runs";
}

TEST(TimeLeft, SpreadsWhatIsLeftOverTheCellsThatRun) {
  Grid grid;
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) grid.Add(name, "glu", 1e4);  // 100 s each
  grid.Finish("a");
  grid.Run("b", 0.5);
  EXPECT_NEAR(grid.Left(), 450, 1);
  grid.Run("c", 0.25);
  EXPECT_NEAR(grid.Left(), (50 + 75 + 300) / 2.0, 1);
}

TEST(TimeLeft, IsNotBelowTheLongestCell) {
  Grid grid;
  for (const char* name : {"a", "b", "c"}) {
    grid.Add(name, "glu", 1e4);
    grid.Run(name, 0.9);
  }
  grid.Add("long", "glu", 1e6);
  grid.Run("long", 0);
  EXPECT_NEAR(grid.Left(), grid.Seconds("long"), 0.05 * grid.Seconds("long"));
}

TEST(TimeLeft, LearnsFromTwoSizesHowTheTimeGrows) {
  Grid grid;
  grid.Add("small", "glu", 1e4);
  grid.Add("middle", "glu", 1e6);
  grid.Add("large", "glu", 1e8);
  grid.Run("small", 0.5);
  // By FLOPs alone middle and large would seem to last 100 and 10,000 times as long as small; they last 10 and 100
  // times.
  const double truth = 0.5 * grid.Seconds("small") + grid.Seconds("middle") + grid.Seconds("large");
  EXPECT_NEAR(grid.Left() / truth, 2.5, 0.3) << "one size: by the exponent that is assumed";
  grid.Finish("small");
  grid.Run("middle", 0);
  const double then = grid.Seconds("middle") + grid.Seconds("large");
  EXPECT_NEAR(grid.Left() / then, 1, 0.05);
}

TEST(TimeLeft, TakesEachArchitectureByItsOwnSpeed) {
  Grid grid;
  grid.Add("glu-a", "glu", 1e4);
  grid.Add("lconv-a", "lconv", 1e4, 0.03);
  grid.Add("glu-b", "glu", 1e4);
  grid.Add("lconv-b", "lconv", 1e4, 0.03);
  grid.Finish("glu-a");
  grid.Run("lconv-a", 0);
  EXPECT_NEAR(grid.Left(), 300 + 100 + 300, 1);
  grid.Add("mos-a", "mos", 1e4);  // not seen: as a mean of the others
  EXPECT_NEAR(grid.Left(), 700 + std::sqrt(100. * 300), 1);
}

TEST(TimeLeft, KnowsNothingOfACellThatWasTriedAgain) {
  Grid grid;
  grid.Add("a", "glu", 1e4);
  grid.Finish("a", 2);  // its time holds what was lost, or waited
  grid.Add("b", "glu", 1e4).set_state(v1::RUN_STATE_RUNNING);
  EXPECT_EQ(grid.Left(), -1);
}

TEST(TimeLeft, TakesCellsWithoutCostsAsAlike) {
  Grid grid;
  for (const char* name : {"a", "b", "c"}) grid.Add(name, "mine", 1e4).clear_costs();
  grid.Finish("a");
  grid.Run("b", 0);
  EXPECT_NEAR(grid.Left(), 200, 1);
}

}  // namespace
}  // namespace allometry::cli
