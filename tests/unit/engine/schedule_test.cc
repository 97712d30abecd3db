#include "worker/trainer/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace allometry::trainer {
namespace {

TEST(ScheduleTest, InverseSqrtIsT5sWithItsConstants) {
  const Schedule schedule{"inverse_sqrt", 0.01, 10'000, "hold"};
  for (int64_t step : {1, 9'999, 10'000, 10'001, 250'000, 524'288})
    EXPECT_NEAR(schedule.RateAt(step), 1.0 / std::sqrt(std::max<double>(static_cast<double>(step), 1e4)), 1e-12)
        << step;
}

TEST(ScheduleTest, LinearWarmUpRisesToThePeak) {
  const Schedule schedule{"inverse_sqrt", 0.1, 100, "linear"};
  EXPECT_DOUBLE_EQ(schedule.RateAt(1), 0.001);
  EXPECT_DOUBLE_EQ(schedule.RateAt(50), 0.05);
  EXPECT_DOUBLE_EQ(schedule.RateAt(100), 0.1);
  EXPECT_DOUBLE_EQ(schedule.RateAt(400), 0.05);
}

TEST(ScheduleTest, ConstantStays) {
  EXPECT_EQ((Schedule{"constant", 1e-3, 0, "hold"}.RateAt(1)), 1e-3);
  EXPECT_EQ((Schedule{"constant", 1e-3, 0, "hold"}.RateAt(1'000'000)), 1e-3);
  EXPECT_EQ((Schedule{"constant", 1e-3, 10, "linear"}.RateAt(5)), 5e-4);
}

// Ten warm-up steps of a hundred: the rates at which a drawing of the schedule would be checked.
TEST(ScheduleTest, CosineFallsHalfAWaveFromWarmUpToTheEnd) {
  const Schedule schedule{"cosine", 2.0, 10, "linear", 110, 0.1};
  EXPECT_DOUBLE_EQ(schedule.RateAt(1), 0.2);
  EXPECT_DOUBLE_EQ(schedule.RateAt(10), 2.0);
  EXPECT_NEAR(schedule.RateAt(35), 2.0 * (0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2), 1e-12);
  EXPECT_NEAR(schedule.RateAt(60), 2.0 * 0.55, 1e-12);
  EXPECT_NEAR(schedule.RateAt(110), 0.2, 1e-12);
  for (int64_t step = 11; step <= 110; ++step) EXPECT_LT(schedule.RateAt(step), schedule.RateAt(step - 1)) << step;
  EXPECT_EQ((Schedule{"cosine", 1.0, 0, "linear", 4}.RateAt(4)), 0.0);
}

TEST(ScheduleTest, WsdIsConstantAndThenFallsStraight) {
  const Schedule schedule{"wsd", 2.0, 10, "linear", 200, 0.0, 0.2};
  EXPECT_DOUBLE_EQ(schedule.RateAt(5), 1.0);
  for (int64_t step : {10, 11, 100, 160}) EXPECT_DOUBLE_EQ(schedule.RateAt(step), 2.0) << step;
  EXPECT_DOUBLE_EQ(schedule.RateAt(170), 1.5);
  EXPECT_NEAR(schedule.RateAt(199), 0.05, 1e-12);
  EXPECT_EQ(schedule.RateAt(200), 0.0);
  EXPECT_DOUBLE_EQ((Schedule{"wsd", 1.0, 0, "hold", 100, 0.25, 1.0}.RateAt(50)), 0.625);
  EXPECT_EQ((Schedule{"wsd", 1.0, 0, "hold", 100, 0.0, 0.0}.RateAt(99)), 1.0) << "no decay";
}

// Warm-up as long as the run, or longer: defined, and no division by zero.
TEST(ScheduleTest, WarmUpMayFillTheRun) {
  for (const char* name : {"cosine", "wsd"})
    for (int64_t step : {1, 50, 100}) {
      const double rate = Schedule{name, 1.0, 100, "linear", 100}.RateAt(step);
      EXPECT_TRUE(rate >= 0 && rate <= static_cast<double>(step) / 100) << name << ' ' << step << ": " << rate;
    }
}

}  // namespace
}  // namespace allometry::trainer
