#include "analysis/line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace allometry::analysis {
namespace {

using ::testing::HasSubstr;

constexpr double kConfidence = 0.95;
// Two-sided 95 % points of Student's t from printed tables, by degrees of freedom.
constexpr double kT1 = 12.706205, kT3 = 3.182446, kT4 = 2.776445;

SizeSamples At(double x, std::vector<double> y) { return {std::vector<double>(y.size(), x), y}; }

TEST(Line, ExactLineThroughSizeMeans) {
  const std::vector<SizeSamples> sizes{At(1, {2.5, 3.5}), At(2, {4.9, 5.1}), At(3, {7.25, 6.75})};
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  EXPECT_NEAR(*e.alpha, 2.0, 1e-12);
  EXPECT_NEAR(e.line_interval->low, 2.0, 1e-9) << "means lie on the line";
}

// Pooled: squared deviations 0.5 + 0.02 + 0.125 over 3 degrees give v; a = -1/2, 0, 1/2; n = 2.
TEST(Line, PooledSeedIntervalByHand) {
  const std::vector<SizeSamples> sizes{At(1, {2.5, 3.5}), At(2, {4.9, 5.1}), At(3, {7.25, 6.75})};
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  const double v = (0.5 + 0.02 + 0.125) / 3, variance = (0.25 + 0.25) * v / 2;
  EXPECT_NEAR(e.variance, variance, 1e-12);
  EXPECT_DOUBLE_EQ(e.seed_interval->degrees_of_freedom, 3);
  EXPECT_NEAR(e.seed_interval->high, 2 + kT3 * std::sqrt(variance), 1e-5);
}

// Three seeds a size: v_i = s_i^2 = 1, 0.01, 0.25; only the ends count; Satterthwaite by hand.
TEST(Line, WelchSeedIntervalByHand) {
  const std::vector<SizeSamples> sizes{At(0, {-1, 0, 1}), At(1, {0.9, 1, 1.1}), At(2, {1.5, 2, 2.5})};
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  const double first = 0.25 * 1.0 / 3, last = 0.25 * 0.25 / 3;
  EXPECT_NEAR(e.variance, first + last, 1e-12);
  EXPECT_NEAR(e.seed_interval->degrees_of_freedom,
              (first + last) * (first + last) / (first * first / 2 + last * last / 2), 1e-9);
  EXPECT_TRUE(e.HasFlag("unequal seed sd"));
}

// y = 0, 1, 5 at x = 0, 1, 2: slope 2.5, residuals 0.5, -1, 0.5, so s^2 = 1.5 with one degree of freedom and Sxx = 2.
TEST(Line, OneSeedHasTheLineIntervalOnly) {
  const std::vector<SizeSamples> sizes{At(0, {0}), At(1, {1}), At(2, {5})};
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  EXPECT_TRUE(e.HasFlag("one seed"));
  EXPECT_FALSE(e.seed_interval);
  EXPECT_NEAR(e.line_interval->high - 2.5, kT1 * std::sqrt(1.5 / 2), 1e-4);
}

TEST(Line, FromSixSizesOnTheQuadraticIsRemoved) {
  std::vector<SizeSamples> sizes;
  for (int i = 0; i < 7; ++i) sizes.push_back(At(i, {0.3 * i * i}));
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  EXPECT_DOUBLE_EQ(e.line_interval->degrees_of_freedom, 4);
  EXPECT_NEAR(e.line_interval->high, e.line_interval->low, 1e-9) << "a pure quadratic leaves no residual";
  EXPECT_NEAR(*e.alpha, 0.3 * 6, 1e-9);
}

TEST(Line, TwoSizesHaveTheSeedIntervalOnlyAndAFlag) {
  const std::vector<SizeSamples> sizes{At(0, {0, 0.2, 0.4}), At(1, {1, 1.1, 1.2})};
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  EXPECT_TRUE(e.HasFlag("two sizes"));
  EXPECT_TRUE(e.seed_interval);
  EXPECT_FALSE(e.line_interval);
}

TEST(Line, RefusalsSayWhy) {
  const auto refused = [](const std::vector<SizeSamples>& sizes) { return EstimateSlope(sizes, kConfidence).refused; };
  EXPECT_THAT(refused({}), HasSubstr("two sizes"));
  EXPECT_THAT(refused({At(1, {1, 2})}), HasSubstr("two sizes"));
  EXPECT_THAT(refused({At(1, {1}), At(2, {2})}), HasSubstr("without an interval"));
  EXPECT_THAT(refused({At(1, {1}), At(1, {2})}), HasSubstr("same x"));
  EXPECT_THAT(refused({At(1, {1, 1}), At(2, {2, 2}), At(3, {4, 4})}), HasSubstr("same run"));
}

TEST(Line, CurvatureIsFlaggedAgainstTheSeedsAndNotWithinThem) {
  const auto sizes = [](double bend, double noise) {
    std::vector<SizeSamples> out;
    for (int i = 0; i < 4; ++i) out.push_back(At(i, {i + bend * i * i - noise, i + bend * i * i + noise}));
    return out;
  };
  EXPECT_TRUE(EstimateSlope(sizes(0.5, 0.01), kConfidence).HasFlag("curved"));
  EXPECT_FALSE(EstimateSlope(sizes(0.01, 0.5), kConfidence).HasFlag("curved"));
}

TEST(Line, UnequalNumbersOfSeedsArePooledAndFlagged) {
  const std::vector<SizeSamples> sizes{At(0, {0, 0.1, 0.2}), At(1, {1, 1.1}), At(2, {2.05})};
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  EXPECT_TRUE(e.HasFlag("pooled across unequal seeds"));
  EXPECT_DOUBLE_EQ(e.seed_interval->degrees_of_freedom, 3);
}

// Where x varies between seeds the variance is that of the linearised slope: compare with finite differences.
TEST(Line, RandomXUsesTheDeltaMethod) {
  const std::vector<SizeSamples> sizes{{{1.0, 1.3}, {2.0, 2.4}}, {{2.1, 1.8}, {2.9, 3.3}}, {{3.0, 3.4}, {5.1, 4.5}}};
  const SlopeEstimate e = EstimateSlope(sizes, kConfidence);
  double xx = 0, xy = 0, yy = 0;
  for (const SizeSamples& s : sizes) {
    const double dx = (s.x[0] - s.x[1]) / 2, dy = (s.y[0] - s.y[1]) / 2;
    xx += 2 * dx * dx / 3, xy += 2 * dx * dy / 3, yy += 2 * dy * dy / 3;
  }
  const auto slope_with = [&](size_t size, double dx, double dy) {
    std::vector<SizeSamples> moved = sizes;
    for (double& x : moved[size].x) x += dx;
    for (double& y : moved[size].y) y += dy;
    return *EstimateSlope(moved, kConfidence).alpha;
  };
  const double h = 1e-6;
  double variance = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double gx = (slope_with(i, h, 0) - slope_with(i, -h, 0)) / (2 * h);
    const double gy = (slope_with(i, 0, h) - slope_with(i, 0, -h)) / (2 * h);
    variance += (gx * gx * xx + 2 * gx * gy * xy + gy * gy * yy) / 2;
  }
  EXPECT_NEAR(e.variance / variance, 1.0, 1e-6);
}

TEST(Difference, EqualVariancesAddTheirDegreesOfFreedom) {
  const std::vector<SizeSamples> a{At(0, {-0.1, 0.1}), At(1, {1.9, 2.1})}, b{At(0, {-0.1, 0.1}), At(1, {0.9, 1.1})};
  const SlopeDifference d = Difference(EstimateSlope(a, kConfidence), EstimateSlope(b, kConfidence), kConfidence);
  EXPECT_NEAR(d.difference, 1.0, 1e-12);
  EXPECT_NEAR(d.interval->degrees_of_freedom, 4, 1e-9);
  // v = 0.02 a size, two sizes of two seeds: each slope has variance 0.02.
  EXPECT_NEAR(d.interval->high, 1 + kT4 * std::sqrt(0.04), 1e-5);
  EXPECT_LT(d.p_value, 0.01);
}

TEST(Holm, KnownExample) {
  // By hand: sorted .01 .02 .03 .04 times 4 3 2 1 gives .04 .06 .06 .04, raised to never fall.
  EXPECT_THAT(HolmAdjusted(std::vector<double>{0.04, 0.01, 0.03, 0.02}),
              ::testing::ElementsAre(::testing::DoubleEq(0.06), ::testing::DoubleEq(0.04), ::testing::DoubleEq(0.06),
                                     ::testing::DoubleEq(0.06)));
  EXPECT_THAT(HolmAdjusted(std::vector<double>{0.9, 0.8}), ::testing::ElementsAre(1.0, 1.0));
}

}  // namespace
}  // namespace allometry::analysis
