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

}  // namespace
}  // namespace allometry::trainer
