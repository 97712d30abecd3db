#include "analysis/backtest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

const AxisPair kFU{Axis::kFlops, Axis::kUpstream};

TEST(Backtest, AStraightStudyForetellsItsLargestSize) {
  const BacktestResult result = Backtest(Grid("a", {.sizes = 4}), {.axes = kFU}).value();
  ASSERT_THAT(result.rows, SizeIs(1));
  const BacktestRow& row = result.rows[0];
  EXPECT_EQ(row.form, "line");
  EXPECT_EQ(row.size, "z3");
  EXPECT_EQ(row.fitted_sizes, 3);
  EXPECT_NEAR(*row.error, 0, 1e-9);
  EXPECT_NEAR(*row.forecast_value, 10 - 0.5 * 9, 1e-9) << "a loss, and not minus one";
  EXPECT_TRUE(*row.in_seed_interval);
}

TEST(Backtest, ACurveIsCaughtByItsError) {
  const BacktestResult result = Backtest(Grid("a", {.sizes = 4, .bend = 0.05}), {.axes = kFU}).value();
  const BacktestRow& row = result.rows[0];
  // The line through 0, .05, .2 (bend i^2) says at 3: .0833 + .1 x 2 = .2833, where .45 is measured; y is minus that.
  EXPECT_NEAR(*row.error, 0.45 - 0.85 / 3, 1e-9);
  EXPECT_FALSE(*row.in_seed_interval);
  EXPECT_NEAR(*row.relative_error, -*row.error / *row.measured_value, 1e-12);
  EXPECT_EQ(result.summaries[0].in_seed_interval, 0);
  EXPECT_NEAR(*result.summaries[0].median_absolute_error, *row.error, 1e-12);
}

TEST(Backtest, TheLargestSizeIsThatOfTheLargestXWhereverItStands) {
  records::Table table = Grid("a", {.sizes = 4});
  std::ranges::reverse(table);
  EXPECT_EQ(Backtest(table, {.axes = kFU}).value().rows[0].size, "z3");
}

TEST(Backtest, AllPairsOfAxesWithASummaryEach) {
  const BacktestResult result = Backtest(Grid("a", {.sizes = 4}) + Grid("b", {.sizes = 2}), {}).value();
  EXPECT_THAT(result.rows, SizeIs(14));
  ASSERT_THAT(result.summaries, SizeIs(7));
  for (const BacktestSummary& s : result.summaries) {
    EXPECT_EQ(s.asked, 2);
    EXPECT_EQ(s.refused, 1);
  }
  EXPECT_THAT(result.rows[1].refused, HasSubstr("three sizes"));
}

TEST(Backtest, LogLogValuesComeBackAsLossesAndScores) {
  const BacktestResult result =
      Backtest(Grid("a", {.sizes = 4}), {.slopes = {.transform = Transform::kLoglog}}).value();
  for (const BacktestRow& row : result.rows) {
    const double value = *row.measured_value;
    if (row.axes.y == Axis::kUpstream) {
      EXPECT_NEAR(value, 5.5, 0.01);
    } else {
      EXPECT_NEAR(value, 0.6, 0.01);
    }
  }
}

TEST(Backtest, FurtherFormsStandBesideTheLine) {
  const BacktestForm last{
      "last size", [](const ForecastRequest& r) { return Forecast{.value = r.fitted.back().y.front()}; }, {}};
  const BacktestForm none{"none", [](const ForecastRequest&) { return Forecast{.refused = "not converged"}; }, {}};
  const std::vector<BacktestForm> forms{LineForm(), last, none};
  const BacktestResult result = Backtest(Grid("a", {.sizes = 4}), {.axes = kFU}, forms).value();
  ASSERT_THAT(result.rows, SizeIs(3));
  EXPECT_NEAR(*result.rows[1].error, -0.5, 0.02);
  EXPECT_FALSE(result.rows[1].in_seed_interval);
  EXPECT_EQ(result.rows[2].refused, "not converged");
  EXPECT_THAT(result.summaries, SizeIs(3));
}

TEST(Backtest, DegenerateSlopesAreRefusedWithTheirReason) {
  records::Table table = Grid("one size", {.sizes = 1}) + Grid("equal seeds", {.noise = 0}) + Grid("equal costs", {});
  for (records::Record& r : table)
    if (r.architecture == "equal costs") r.metrics["forward_flops"] = 1e6;
  const BacktestResult result = Backtest(table, {.axes = kFU}).value();
  for (const BacktestRow& row : result.rows) {
    EXPECT_FALSE(row.refused.empty()) << row.architecture;
    EXPECT_FALSE(row.forecast) << row.architecture;
  }
}

// Forecast intervals of straight truths: 10,000 data sets each, seeded.
struct ForecastTruth {
  int sizes = 4, seeds = 2;
  double size_sd = 0;
};

double ForecastCoverage(const ForecastTruth& truth, std::optional<Interval> Forecast::*interval) {
  std::mt19937_64 generator(77);
  std::normal_distribution<double> normal;
  constexpr int kSets = 10'000;
  int covered = 0;
  for (int set = 0; set < kSets; ++set) {
    std::vector<SizeSamples> sizes(static_cast<size_t>(truth.sizes));
    for (size_t i = 0; i < sizes.size(); ++i) {
      const double mean = 0.5 * double(i) + truth.size_sd * normal(generator);
      for (int s = 0; s < truth.seeds; ++s) {
        sizes[i].x.push_back(double(i));
        sizes[i].y.push_back(mean + normal(generator));
      }
    }
    const std::span<const SizeSamples> fitted = std::span(sizes).first(sizes.size() - 1);
    const Forecast forecast = LineForm().forecast({fitted, sizes.back()});
    double measured = 0;
    for (double y : sizes.back().y) measured += y / truth.seeds;
    const Interval& found = *(forecast.*interval);
    covered += found.low <= measured && measured <= found.high;
  }
  const double share = static_cast<double>(covered) / kSets;
  return share;
}

TEST(BacktestCoverage, OfTheSeedInterval) {
  for (const ForecastTruth& truth : {ForecastTruth{}, ForecastTruth{.sizes = 3}, ForecastTruth{.seeds = 3}})
    EXPECT_NEAR(ForecastCoverage(truth, &Forecast::seed_interval), 0.95, 0.02);
}

TEST(BacktestCoverage, OfTheLineInterval) {
  for (const ForecastTruth& truth : {ForecastTruth{.seeds = 1}, ForecastTruth{.sizes = 6, .size_sd = 1}})
    EXPECT_NEAR(ForecastCoverage(truth, &Forecast::line_interval), 0.95, 0.015);
}

}  // namespace
}  // namespace allometry::analysis
