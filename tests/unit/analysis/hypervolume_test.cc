#include "analysis/hypervolume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace allometry::analysis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Points = std::vector<std::vector<double>>;

// By counting the unit boxes of a grid of whole numbers.
double ByCounting(const Points& points, const std::vector<double>& reference) {
  std::vector<double> corner(reference.size(), 0);
  double volume = 0;
  for (;;) {
    volume +=
        std::ranges::any_of(points, [&](const auto& p) { return std::ranges::equal(p, corner, std::less_equal<>()); });
    size_t k = 0;
    while (k < corner.size() && ++corner[k] >= reference[k]) corner[k++] = 0;
    if (k == corner.size()) return volume;
  }
}

// One of each that no other is as good as in every coordinate.
Points NotCovered(const Points& points) {
  Points kept;
  for (const auto& point : points) {
    const bool covered = std::ranges::any_of(points, [&](const auto& other) {
      return other != point && std::ranges::equal(other, point, std::less_equal<>());
    });
    if (!covered && std::ranges::count(kept, point) == 0) kept.push_back(point);
  }
  return kept;
}

TEST(Hypervolume, OfTwoObjectivesByHand) {
  const auto found = MeasureHypervolume(Points{{1, 3}, {2, 1}}, {4, 4}).value();
  EXPECT_DOUBLE_EQ(found.volume, 3 * 1 + 2 * 2);  // above y = 3 and below
  EXPECT_THAT(found.contributions, ElementsAre(1, 4));
}

TEST(Hypervolume, AgreesWithCountingInTwoToFiveObjectives) {
  std::mt19937 generator(11);
  for (int round = 0; round < 200; ++round) {
    const size_t objectives = 2 + static_cast<size_t>(round) % 4;
    std::uniform_int_distribution<int> small(0, 5);
    Points points(8, std::vector<double>(objectives));
    for (auto& point : points)
      for (double& x : point) x = small(generator);
    const std::vector<double> reference(objectives, 5);
    const Hypervolume found = MeasureHypervolume(points, reference).value();
    ASSERT_DOUBLE_EQ(found.volume, ByCounting(points, reference));
    const Points front = NotCovered(points);
    const Hypervolume of_front = MeasureHypervolume(front, reference).value();
    ASSERT_DOUBLE_EQ(of_front.volume, found.volume);
    for (size_t i = 0; i < front.size(); ++i) {
      Points others = front;
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      ASSERT_NEAR(of_front.contributions[i], found.volume - ByCounting(others, reference), 1e-9);
    }
  }
}

// The part of the unit cube below a sphere's octant, whose volume is known: 1 - pi / 6.
TEST(Hypervolume, OfAFineSphereNearsItsVolume) {
  Points points;
  constexpr int kSteps = 24;
  for (int i = 0; i < kSteps; ++i) {
    for (int j = 0; j < kSteps; ++j) {
      const double a = M_PI_2 * (i + 0.5) / kSteps, b = M_PI_2 * (j + 0.5) / kSteps;
      points.push_back({1 - std::cos(a) * std::cos(b), 1 - std::cos(a) * std::sin(b), 1 - std::sin(a)});
    }
  }
  EXPECT_NEAR(MeasureHypervolume(points, {1, 1, 1}).value().volume, M_PI / 6, 0.05);
}

TEST(Hypervolume, WhatIsNotBelowTheReferenceAddsNothing) {
  const auto found = MeasureHypervolume(Points{{1, 1}, {4, 0}, {0, 9}, {1, 1}, {2, 2}}, {4, 4}).value();
  EXPECT_DOUBLE_EQ(found.volume, 9);
  EXPECT_THAT(found.contributions, ElementsAre(0, 0, 0, 0, 0)) << "twins stand in for each other";
  EXPECT_DOUBLE_EQ(MeasureHypervolume(Points{}, {4, 4}).value().volume, 0);
}

TEST(Hypervolume, TooManyPointsOrUnequalLengthsAreRefused) {
  EXPECT_THAT(MeasureHypervolume(Points{{1, 2, 3}}, {4, 4}).error().message, HasSubstr("as many coordinates"));
  Points many;
  for (int i = 0; i <= 1'000; ++i) many.push_back({double(i), double(1'000 - i), 0});
  EXPECT_THAT(MeasureHypervolume(many, {2'000, 2'000, 1}).error().message, HasSubstr("more than the 1000"));
}

}  // namespace
}  // namespace allometry::analysis
