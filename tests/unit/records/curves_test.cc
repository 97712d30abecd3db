#include "records/curves.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "records/metric_chunk.h"
#include "tests/unit/records/database.h"

namespace allometry::records {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

class CurvesTest : public DatabaseTest {
 protected:
  void AddAttempt(int id, int run, int generation, int64_t first_step) {
    Run("INSERT INTO attempts (attempt_id, run_id, generation, worker_id, sweep_id, outcome, first_step, "
        "started_unix_ms) VALUES (" +
        std::to_string(id) + ", " + std::to_string(run) + ", " + std::to_string(generation) + ", 1, 1, 'lost', " +
        std::to_string(first_step) + ", 0)");
  }
  void AddPoints(int attempt, const std::string& series, int sequence, const std::vector<int64_t>& steps,
                 const std::vector<double>& values) {
    std::string hex;
    for (const unsigned char byte : PackPoints(steps, values)) {
      char two[3];
      std::snprintf(two, sizeof two, "%02x", byte);
      hex += two;
    }
    Run("INSERT INTO metrics (attempt_id, series, sequence, first_step, points, data) VALUES (" +
        std::to_string(attempt) + ", '" + series + "', " + std::to_string(sequence) + ", " +
        std::to_string(steps.front()) + ", " + std::to_string(steps.size()) + ", X'" + hex + "')");
  }
};

TEST_F(CurvesTest, ACurveFollowsTheAttemptsThatLedToTheResult) {
  AddSweep(1, "tay");
  AddRun(2, "pretrain", "done");  // accepted: attempt 2, generation 1
  AddCell(1, "glu-base-s1", 2, 0, "pretrain");
  AddAttempt(7, 2, 0, 0);  // was lost; attempt 2 went on from step 20
  Run("UPDATE attempts SET first_step = 20 WHERE attempt_id = 2");
  AddAttempt(9, 2, 2, 0);  // later than the accepted one
  AddPoints(7, "train/loss", 0, {10, 20, 30}, {5, 4, 99});
  AddPoints(2, "train/loss", 50, {40}, {2});
  AddPoints(2, "train/loss", 0, {30}, {3});
  AddPoints(9, "train/loss", 0, {10}, {98});
  AddPoints(2, "valid/loss", 0, {40}, {2.5});
  AddPoints(2, "train/grad_norm", 0, {40}, {1});
  const std::vector<Curve> curves = LoadCurves(path_, {"tay"}, {"train/loss", "valid/loss"}, 0).value();
  ASSERT_THAT(curves, SizeIs(2));
  EXPECT_EQ(curves[0].Name(), "tay/glu-base-s1");
  EXPECT_EQ(curves[0].series, "train/loss");
  EXPECT_THAT(curves[0].steps, ElementsAre(10, 20, 30, 40));
  EXPECT_THAT(curves[0].values, ElementsAre(5, 4, 3, 2));
  EXPECT_THAT(curves[1].values, ElementsAre(2.5));
}

TEST_F(CurvesTest, ACellWithoutAResultShowsItsNewestAttempt) {
  AddSweep(1, "tay");
  AddRun(1, "pretrain", "diverged");
  Run("UPDATE runs SET accepted_attempt = 0");
  AddCell(1, "a", 1, 0, "pretrain");
  AddPoints(1, "train/loss", 0, {1, 2}, {5, std::numeric_limits<double>::infinity()});
  const std::vector<Curve> curves = LoadCurves(path_, {}, {"train/loss"}, 0).value();
  ASSERT_THAT(curves, SizeIs(1));
  EXPECT_THAT(curves[0].steps, ElementsAre(1, 2));
}

TEST_F(CurvesTest, FineTuningsAndCellsWithoutPointsHaveNoCurve) {
  AddSweep(1, "tay");
  AddRun(1, "pretrain", "done");
  AddRun(2, "finetune", "done");
  AddCell(1, "a", 1, 0, "pretrain");
  AddCell(1, "a-ft", 2, 1, "finetune");
  AddPoints(2, "train/loss", 0, {1}, {1});
  EXPECT_THAT(LoadCurves(path_, {}, {"train/loss"}, 0).value(), SizeIs(0));
}

TEST_F(CurvesTest, DamageIsNamed) {
  AddSweep(1, "tay");
  AddRun(1, "pretrain", "done");
  AddCell(1, "a", 1, 0, "pretrain");
  AddPoints(1, "train/loss", 0, {1}, {1});
  Run("UPDATE metrics SET data = X'00'");
  EXPECT_EQ(LoadCurves(path_, {}, {"train/loss"}, 0).error().code, common::ErrorCode::kDataLoss);
  EXPECT_EQ(LoadCurves(path_, {"none"}, {"train/loss"}, 0).error().code, common::ErrorCode::kNotFound);
}

Curve Steps(size_t count) {
  Curve curve{.cell = "a", .series = "train/loss"};
  curve.steps.resize(count);
  std::iota(curve.steps.begin(), curve.steps.end(), 1);
  for (int64_t step : curve.steps) curve.values.push_back(10 - std::log(static_cast<double>(step)));
  return curve;
}

TEST(Thinned, KeepsTheBeginningAndTheEndAndAveragesWhatComesTogether) {
  for (const size_t count : {301, 1000, 524288}) {
    const Curve thin = Thinned(Steps(count), 300);
    EXPECT_LE(thin.steps.size(), 300u);
    EXPECT_GE(thin.steps.size(), 150u) << count;
    EXPECT_LE(thin.steps.front(), 1 + static_cast<int64_t>(count) / (300 * 300));
    EXPECT_EQ(thin.steps.back(), static_cast<int64_t>(count));
    EXPECT_TRUE(std::ranges::is_sorted(thin.steps));
    EXPECT_TRUE(std::ranges::is_sorted(thin.values, std::greater<>())) << "means of a falling curve fall";
  }
  Curve four{.cell = "a", .series = "s", .steps = {1, 2, 3, 4}, .values = {8, 4, NAN, 6}};
  EXPECT_THAT(Thinned(four, 2).steps, ElementsAre(1, 4));
  EXPECT_THAT(Thinned(four, 2).values, ElementsAre(8, 5)) << "of finite values alone";
  four.values = {8, NAN, NAN, NAN};
  EXPECT_THAT(Thinned(four, 2).steps, ElementsAre(1)) << "a run without any is dropped";
}

TEST(Thinned, LeavesShortCurvesAsTheyAre) {
  const Curve curve = Steps(300);
  EXPECT_EQ(Thinned(curve, 300).values, curve.values);
  EXPECT_EQ(Thinned(curve, 0).values, curve.values);
  EXPECT_EQ(Thinned(Steps(5), 1).steps, std::vector<int64_t>{5});
}

}  // namespace
}  // namespace allometry::records
