#include "worker/trainer/engine/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace allometry::trainer {
namespace {

// The step at which the detector gives up on a curve, or 0.
template <typename Curve>
int64_t FirstAlarm(DivergenceDetector detector, int64_t steps, Curve curve) {
  for (int64_t step = 1; step <= steps; ++step)
    if (detector.Observe(step, curve(step))) return step;
  return 0;
}

TEST(DivergenceTest, NotANumberEndsAtOnce) {
  for (double bad : {std::nan(""), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()})
    EXPECT_EQ(FirstAlarm({2, 20, 1000}, 100, [&](int64_t s) { return s == 7 ? bad : 5.0; }), 7);
}

TEST(DivergenceTest, FallingNoisyLossIsFine) {
  EXPECT_EQ(FirstAlarm({2, 20, 0}, 5000, [](int64_t s) { return 8.0 / std::sqrt(s) + std::sin(s * 12.9898); }), 0);
}

TEST(DivergenceTest, OneOutlierIsFine) {
  EXPECT_EQ(FirstAlarm({2, 20, 0}, 200, [](int64_t s) { return s == 100 ? 30.0 : 4.0; }), 0);
}

TEST(DivergenceTest, ASustainedSpikeEndsTheRunAfterItsWindow) {
  EXPECT_EQ(FirstAlarm({2, 20, 0}, 200, [](int64_t s) { return s > 100 ? 6.5 : 4.0; }), 120);
  EXPECT_EQ(FirstAlarm({0, 20, 0}, 200, [](int64_t s) { return s > 100 ? 6.5 : 4.0; }), 0) << "turned off";
}

TEST(DivergenceTest, WarmUpRaisesNoAlarmButSetsTheMark) {
  auto curve = [](int64_t s) { return s > 20 ? 9.0 : 5.0; };
  EXPECT_EQ(FirstAlarm({2, 20, 100}, 300, curve), 120);
}

TEST(DivergenceTest, GoesOnFromItsState) {
  auto curve = [](int64_t s) { return s > 37 ? 9.25 : 5.125; };
  for (int64_t cut : {1, 20, 33, 41, 55}) {
    DivergenceDetector first(2, 20, 0), second(2, 20, 0);
    int64_t alarm = 0;
    for (int64_t step = 1; step <= cut; ++step) ASSERT_FALSE(first.Observe(step, curve(step)));
    second.FromJson(common::Json::parse(first.ToJson().dump()));
    for (int64_t step = cut + 1; step <= 100 && !alarm; ++step)
      if (second.Observe(step, curve(step))) alarm = step;
    EXPECT_EQ(alarm, 60) << cut;
  }
}

}  // namespace
}  // namespace allometry::trainer
