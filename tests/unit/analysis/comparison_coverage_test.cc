// What verdicts and probabilities promise, and three customs that fail, on synthetic truth, seeded.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <random>

#include "analysis/comparisons.h"
#include "analysis/frontier.h"
#include "analysis/law_bootstrap.h"
#include "analysis/mean.h"
#include "coverage_report.h"

namespace allometry::analysis {
namespace {

constexpr int kComparisonSets = 10'000;

using Generator = std::mt19937_64;
using Curve = std::function<double(double x)>;

// `sizes` sizes from x = first on, `step` apart, `seeds` seeds each.
struct Grid {
  double first = 0, step = 1;
  int sizes = 4, seeds = 2;
};

std::vector<SizeSamples> Sample(const Grid& grid, const Curve& truth, double sd, Generator* generator) {
  std::normal_distribution<double> normal(0, sd);
  std::vector<SizeSamples> sizes(static_cast<size_t>(grid.sizes));
  for (int i = 0; i < grid.sizes; ++i) {
    const double x = grid.first + grid.step * i;
    for (int s = 0; s < grid.seeds; ++s) {
      sizes[static_cast<size_t>(i)].x.push_back(x);
      sizes[static_cast<size_t>(i)].y.push_back(truth(x) + normal(*generator));
    }
  }
  return sizes;
}

Slope SlopeOf(const std::vector<SizeSamples>& samples) {
  Slope slope{.x = Axis::kFlops, .y = Axis::kUpstream, .estimate = EstimateSlope(samples, 0.95)};
  slope.samples = samples;
  for (const SizeSamples& size : samples) slope.points.push_back({.x = Mean(size.x), .y = Mean(size.y)});
  return slope;
}

// The verdicts over all pairs, as `allo slopes` gives them.
std::vector<SlopeComparison> CompareAll(const std::vector<std::vector<SizeSamples>>& architectures) {
  SlopesResult result{.request = {.baseline = "*"}};
  for (const auto& samples : architectures)
    result.architectures.push_back({"a" + std::to_string(result.architectures.size()), {SlopeOf(samples)}});
  return CompareSlopes(result);
}

bool Differs(const SlopeComparison& c) { return c.verdict.starts_with("differs"); }

// How often any pair of architectures with equal slopes is said to differ.
double FamilyWiseError(int architectures, const Grid& grid, int data_sets, uint64_t seed) {
  Generator generator(seed);
  int wrong = 0;
  for (int set = 0; set < data_sets; ++set) {
    std::vector<std::vector<SizeSamples>> all;
    for (int a = 0; a < architectures; ++a)
      all.push_back(Sample(
          grid, [a](double x) { return 0.5 * x + a; }, 0.1, &generator));
    const auto comparisons = CompareAll(all);
    wrong += std::ranges::any_of(comparisons, Differs);
  }
  return static_cast<double>(wrong) / data_sets;
}

TEST(ComparisonCoverage, HolmHoldsTheErrorOfAllPairsTogether) {
  const int data_sets = DataSets(3'000);
  ReportCoverage("5 architectures, 4 sizes, 3 seeds", FamilyWiseError(5, {.seeds = 3}, data_sets, 1), {0, 0.06},
                 data_sets);
  ReportCoverage("4 architectures, 3 sizes, 2 seeds", FamilyWiseError(4, {.sizes = 3}, data_sets, 2), {0, 0.06},
                 data_sets);
}

// Cells at eight costs whose true qualities are drawn from a flat prior, four units wide, two seeds each of sd 0.5.
// Calibration error: over deciles of the probability, |mean predicted - share that is on the frontier|, weighted by how
// many predictions a decile has.
TEST(ComparisonCoverage, FrontierProbabilitiesAreCalibrated) {
  constexpr int kCells = 8;
  const int data_sets = DataSets(3'000);
  Generator generator(3);
  std::uniform_real_distribution<double> flat(0, 4);
  std::normal_distribution<double> noise(0, 0.5);
  std::array<double, 10> predicted{}, on{}, count{};
  for (int set = 0; set < data_sets; ++set) {
    std::vector<FrontierCell> cells;
    std::vector<double> truths;
    for (int i = 0; i < kCells; ++i) {
      truths.push_back(flat(generator));
      cells.push_back({"c", {1.0 + i}, {truths.back() + noise(generator), truths.back() + noise(generator)}});
    }
    const Frontier found = FindFrontier(cells, {.draws = 1'000, .seed = static_cast<uint64_t>(set), .threads = 1});
    double best = -1;
    for (size_t i = 0; i < cells.size(); ++i) {
      const double p = *found.points[i].probability;
      const auto decile = static_cast<size_t>(std::min(9.0, 10 * p));
      predicted[decile] += p;
      on[decile] += truths[i] > best;
      ++count[decile];
      best = std::max(best, truths[i]);
    }
  }
  double error = 0;
  for (size_t d = 0; d < count.size(); ++d) error += std::abs(predicted[d] - on[d]) / (data_sets * kCells);
  for (size_t d = 0; d < count.size(); ++d)
    EXPECT_GT(count[d], 0.05 * data_sets) << "decile " << d << " was asked about";
  ReportCoverage("calibration error", error, {0, 0.02}, data_sets);
}

// --- Customs that fail. They are no part of the analysis; these studies say why. ---

double SlopeThrough(const std::vector<double>& x, const std::vector<double>& y, const std::vector<double>& weight) {
  double w = 0, wx = 0, wy = 0, xx = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) w += weight[i], wx += weight[i] * x[i], wy += weight[i] * y[i];
  for (size_t i = 0; i < x.size(); ++i) {
    xx += weight[i] * (x[i] - wx / w) * (x[i] - wx / w);
    xy += weight[i] * (x[i] - wx / w) * (y[i] - wy / w);
  }
  return xy / xx;
}

// Which of the runs a bootstrap may take in the place of one: any, or a seed of the same size.
enum class Resampled { kRuns, kSeedsOfASize };

// Percentiles of the slopes through 400 samples with replacement.
Range BootstrapSlope(const std::vector<SizeSamples>& sizes, Resampled resampled, Generator* generator) {
  std::vector<double> x, y, slopes;
  for (const SizeSamples& size : sizes) {
    x.insert(x.end(), size.x.begin(), size.x.end());
    y.insert(y.end(), size.y.begin(), size.y.end());
  }
  const size_t seeds = sizes[0].y.size(), among = resampled == Resampled::kRuns ? x.size() : seeds;
  std::uniform_int_distribution<size_t> any(0, among - 1);
  while (slopes.size() < 400) {
    std::vector<double> counts(x.size(), 0);
    for (size_t i = 0; i < x.size(); ++i)
      ++counts[resampled == Resampled::kRuns ? any(*generator) : i / seeds * seeds + any(*generator)];
    const double slope = SlopeThrough(x, y, counts);
    if (std::isfinite(slope)) slopes.push_back(slope);
  }
  return PercentileInterval(std::move(slopes), 0.95);
}

double BootstrapCoverage(Resampled resampled) {
  Generator generator(4);
  int covered = 0;
  for (int set = 0; set < kComparisonSets; ++set) {
    const auto sizes = Sample(
        {.sizes = 3}, [](double x) { return 0.5 * x; }, 0.1, &generator);
    const Range interval = BootstrapSlope(sizes, resampled, &generator);
    covered += interval.low <= 0.5 && 0.5 <= interval.high;
  }
  return static_cast<double>(covered) / kComparisonSets;
}

TEST(TrapCoverage, ABootstrapOverThreeSizesAndTwoSeedsFallsShort) {
  ReportCoverage("seeds of each size", BootstrapCoverage(Resampled::kSeedsOfASize), {0, 0.90}, kComparisonSets);
  ReportCoverage("all runs", BootstrapCoverage(Resampled::kRuns), {0, 0.92}, kComparisonSets);
}

// Weights 1 / (s_i^2 / n_i), as if the standard errors that two seeds give were known.
TEST(TrapCoverage, ALineWeightedByEstimatedStandardErrorsFallsShort) {
  Generator generator(5);
  int covered = 0;
  for (int set = 0; set < kComparisonSets; ++set) {
    std::vector<double> x, y, weight;
    for (const SizeSamples& size : Sample(
             {}, [](double at) { return 0.5 * at; }, 0.1, &generator)) {
      x.push_back(size.x[0]);
      y.push_back(Mean(size.y));
      weight.push_back(2 / std::pow(*SampleSd(size.y), 2));
    }
    double w = 0, wx = 0, xx = 0;
    for (size_t i = 0; i < x.size(); ++i) w += weight[i], wx += weight[i] * x[i];
    for (size_t i = 0; i < x.size(); ++i) xx += weight[i] * std::pow(x[i] - wx / w, 2);
    covered += std::abs(SlopeThrough(x, y, weight) - 0.5) <= 1.96 / std::sqrt(xx);
  }
  ReportCoverage("weighted line", static_cast<double>(covered) / kComparisonSets, {0, 0.90}, kComparisonSets);
}

// One curve: both architectures are equal, and one was run on smaller models than the other.
TEST(TrapCoverage, OneCurveOverTwoRangesGetsNoVerdictAndFoolsATTest) {
  const auto curve = [](double x) { return 0.8 * x - 0.1 * x * x; };
  Generator generator(6);
  int fooled = 0, no_verdict = 0, differs = 0, shared_differs = 0;
  for (int set = 0; set < kComparisonSets; ++set) {
    const auto low = Sample({.first = 0, .step = 0.5, .seeds = 3}, curve, 0.02, &generator);
    const auto high = Sample({.first = 0.5, .step = 0.5, .seeds = 3}, curve, 0.02, &generator);
    const SlopeComparison c = CompareAll({low, high}).front();
    fooled += *c.p_seeds < 0.05;
    no_verdict += c.verdict == "no verdict";
    differs += Differs(c);
    shared_differs += c.shared_curvature && c.shared_curvature->p_value < 0.05;
  }
  ReportCoverage("t test of the slopes differs", static_cast<double>(fooled) / kComparisonSets, {0.5, 1},
                 kComparisonSets);
  ReportCoverage("no verdict", static_cast<double>(no_verdict) / kComparisonSets, {0.9, 1}, kComparisonSets);
  ReportCoverage("verdict of a difference", static_cast<double>(differs) / kComparisonSets, {0, 0.06}, kComparisonSets);
  ReportCoverage("shared curvature differs", static_cast<double>(shared_differs) / kComparisonSets, {0, 0.06},
                 kComparisonSets);
}

}  // namespace
}  // namespace allometry::analysis
