#include "analysis/suggest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "analysis/allocation.h"
#include "analysis/mean.h"
#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The least variance of all allocations that the budget pays.
double BruteForce(const std::vector<SeedCell>& cells, const AllocationLimits& limits, std::vector<int>* seeds,
                  double spent = 0) {
  if (spent > limits.budget * (1 + 1e-9)) return INFINITY;
  const size_t next = seeds->size();
  if (next == cells.size()) return AllocatedVariance(cells, *seeds);
  double best = INFINITY;
  const int low = std::max(limits.floor, cells[next].has), high = std::max(limits.cap, low);
  for (int n = low; n <= high; ++n) {
    seeds->push_back(n);
    best = std::min(best, BruteForce(cells, limits, seeds, spent + cells[next].cost * (n - cells[next].has)));
    seeds->pop_back();
  }
  return best;
}

// 97 % are optimal here; the worst has 9 % more variance, which is 4 % of an interval's width.
TEST(Allocation, IsAsGoodAsBruteForceInNearlyAllSmallCases) {
  std::mt19937_64 generator(11);
  std::uniform_real_distribution<double> uniform;
  int optimal = 0, cases = 0;
  double worst = 1;
  for (int round = 0; round < 400; ++round) {
    std::vector<SeedCell> cells;
    double all = 0;
    const int count = 3 + round % 4;
    for (int i = 0; i < count; ++i) {
      cells.push_back({std::exp(3 * uniform(generator)), std::exp(4 * uniform(generator)), round % 3 ? 2 : 1 + i % 3});
      all += 4 * cells.back().cost;
    }
    const AllocationLimits limits{.budget = all * (0.05 + 0.7 * uniform(generator))};
    const auto seeds = AllocateSeeds(cells, limits);
    std::vector<int> scratch;
    const double best = BruteForce(cells, limits, &scratch);
    ASSERT_EQ(seeds.has_value(), std::isfinite(best));
    if (!seeds) continue;
    double cost = 0;
    for (size_t i = 0; i < cells.size(); ++i) cost += cells[i].cost * ((*seeds)[i] - cells[i].has);
    EXPECT_LE(cost, limits.budget * (1 + 1e-9));
    ++cases;
    const double ratio = AllocatedVariance(cells, *seeds) / best;
    optimal += ratio < 1 + 1e-9;
    worst = std::max(worst, ratio);
  }
  EXPECT_GT(cases, 300);
  EXPECT_GE(optimal, cases * 96 / 100);
  EXPECT_LE(worst, 1.1);
}

TEST(Allocation, FollowsNeymanWithCosts) {
  // |a| sigma = 4, 1, 2 at costs 1, 4, 16: n in proportion to 4, 1/2, 1/2.
  const std::vector<SeedCell> cells{{16, 1, 0}, {1, 4, 0}, {4, 16, 0}};
  const auto seeds = AllocateSeeds(cells, {.budget = 64 * 1 + 8 * 4 + 8 * 16, .floor = 1, .cap = 100});
  EXPECT_EQ(*seeds, (std::vector<int>{64, 8, 8}));
}

TEST(Allocation, HoldsTheFloorTheCapAndWhatHasRun) {
  const std::vector<SeedCell> cells{{1, 1, 1}, {1, 1, 7}, {0, 1, 2}};
  EXPECT_EQ(*AllocateSeeds(cells, {.budget = 1000}), (std::vector<int>{5, 7, 2}));
  EXPECT_EQ(*AllocateSeeds(cells, {.budget = 1}), (std::vector<int>{2, 7, 2}));
  EXPECT_FALSE(AllocateSeeds(cells, {.budget = 0.5}));
  EXPECT_DOUBLE_EQ(CostOfFloor(cells, {}), 1);
}

TEST(Allocation, ThousandsOfCellsAreAllocated) {
  std::vector<SeedCell> cells;
  for (int i = 0; i < 3000; ++i) cells.push_back({1.0 + i % 17, 1.0 + i % 5, 2});
  const auto seeds = AllocateSeeds(cells, {.budget = 5000});
  double cost = 0;
  for (size_t i = 0; i < cells.size(); ++i) cost += cells[i].cost * ((*seeds)[i] - 2);
  EXPECT_GT(cost, 4990);
  EXPECT_LE(cost, 5000.001);
}

// The mean half width of the seed intervals of 4,000 simulated studies with these seeds, over the expected one.
double SimulatedOverExpected(const std::vector<int>& seeds, const std::vector<double>& sds) {
  std::mt19937_64 generator(31);
  std::normal_distribution<double> normal;
  std::vector<double> terms;
  const double mean = (static_cast<double>(seeds.size()) - 1) / 2;
  double sxx = 0, pooled = 0, degrees = 0;
  for (size_t i = 0; i < seeds.size(); ++i) sxx += (double(i) - mean) * (double(i) - mean);
  for (size_t i = 0; i < seeds.size(); ++i) {
    pooled += sds[i] * sds[i] * (seeds[i] - 1);
    degrees += seeds[i] - 1;
  }
  const bool own = std::ranges::min(seeds) >= 3;
  for (size_t i = 0; i < seeds.size(); ++i)
    terms.push_back(std::pow((double(i) - mean) / sxx, 2) * (own ? sds[i] * sds[i] : pooled / degrees));
  double sum = 0;
  constexpr int kSets = 4'000;
  for (int set = 0; set < kSets; ++set) {
    std::vector<SizeSamples> sizes(seeds.size());
    for (size_t i = 0; i < seeds.size(); ++i) {
      for (int s = 0; s < seeds[i]; ++s) {
        sizes[i].x.push_back(double(i));
        sizes[i].y.push_back(0.5 * double(i) + sds[i] * normal(generator));
      }
    }
    const Interval interval = *EstimateSlope(sizes, 0.95).seed_interval;
    sum += (interval.high - interval.low) / 2 / kSets;
  }
  return sum / *ExpectedHalfWidth(terms, seeds, 0.95);
}

TEST(ExpectedHalfWidth, IsTheMeanOfSimulatedIntervals) {
  EXPECT_NEAR(SimulatedOverExpected({2, 2, 2}, {1, 1, 1}), 1, 0.02);
  EXPECT_NEAR(SimulatedOverExpected({2, 3, 2, 5}, {1, 1, 1, 1}), 1, 0.02);
  EXPECT_NEAR(SimulatedOverExpected({3, 3, 3}, {1, 1, 1}), 1, 0.04);
  EXPECT_NEAR(SimulatedOverExpected({5, 5, 5, 5}, {1, 1, 1, 1}), 1, 0.03);
  EXPECT_NEAR(SimulatedOverExpected({4, 3, 4, 5}, {1, 2, 1, 1}), 1, 0.03);
}

TEST(SmallestDifference, IsShownInFourOfFiveStudies) {
  std::mt19937_64 generator(80);
  std::normal_distribution<double> normal;
  const double delta = SmallestDifference(0.1, 5, 4, 3);
  int shown = 0;
  constexpr int kSets = 10'000;
  for (int set = 0; set < kSets; ++set) {
    std::vector<SizeSamples> sizes[2];
    for (int g = 0; g < 2; ++g) {
      sizes[g].resize(4);
      for (size_t i = 0; i < 4; ++i) {
        for (int s = 0; s < 3; ++s) {
          sizes[g][i].x.push_back(double(i));
          sizes[g][i].y.push_back((g ? delta : 0) * double(i) + 0.1 * normal(generator));
        }
      }
    }
    // The formula's test: one variance pooled over both, 2 k (n - 1) degrees.
    double squares = 0, slope[2];
    for (int g = 0; g < 2; ++g) {
      slope[g] = *EstimateSlope(sizes[g], 0.95).alpha;
      for (const SizeSamples& size : sizes[g]) squares += 2 * std::pow(*SampleSd(size.y), 2);
    }
    const double se = std::sqrt(squares / 16 * 2 / (3 * 5.0));
    shown += std::abs(slope[1] - slope[0]) > TQuantile(0.95, 16) * se;
  }
  EXPECT_NEAR(static_cast<double>(shown) / kSets, 0.8, 0.02);
}

records::Table Priced(records::Table table) {
  for (records::Record& r : table) r.metrics["training_flops"] = 1e6 * r.metrics["forward_flops"];
  return table;
}

TEST(Suggest, NamesCellsWithSeedsThatAreFreeAndNarrowsTheSlope) {
  records::Table table = Priced(Grid("a", {.sizes = 3, .seeds = 2}));
  records::Record diverged = table[0];
  diverged.seed = 2;
  diverged.state = records::CellState::kDiverged;
  table.push_back(diverged);
  const SuggestResult result = Suggest(table, {.budget_flops = 1.2e14}).value();
  ASSERT_FALSE(result.cells.empty());
  double flops = 0;
  for (const SuggestedCell& cell : result.cells) {
    flops += cell.flops;
    EXPECT_GE(cell.seed, cell.size == "z0" ? 3u : 2u) << "seed 2 of z0 has diverged, and stays taken";
  }
  EXPECT_LE(flops, 1.2e14);
  EXPECT_DOUBLE_EQ(flops, result.flops);
  ASSERT_THAT(result.slopes, SizeIs(1));
  EXPECT_LT(*result.slopes[0].half_after, *result.slopes[0].half_now);
  ASSERT_THAT(result.new_sizes, SizeIs(2));
  EXPECT_THAT(result.notes, Contains(HasSubstr("changes what is estimated")));
}

TEST(Suggest, ANewSizeIsPricedByItsNeighboursAndScoredOnTheLine) {
  records::Table table = Priced(Grid("a", {.sizes = 4, .bend = 0.02}));
  const SuggestResult result = Suggest(table, {.budget_flops = 1e15}).value();
  const SuggestedSize& below = result.new_sizes[0];
  EXPECT_NEAR(below.x, 5, 1e-9);
  EXPECT_NEAR(below.flops, 2e11, 1e3);
  EXPECT_TRUE(below.affordable);
  EXPECT_LT(below.line_half_after, below.line_half_now);
  EXPECT_FALSE(result.new_sizes[1].affordable);
  EXPECT_NEAR(result.new_sizes[1].x, 10, 1e-9);
}

TEST(Suggest, PowerFallsWithSeedsAndSizes) {
  const records::Table table = Priced(Grid("a", {.sizes = 3}) + Grid("b", {.sizes = 3}));
  const SuggestResult result = Suggest(table, {.budget_flops = 1e15, .delta = 0.02}).value();
  ASSERT_THAT(result.power, SizeIs(7));
  for (size_t i = 0; i < result.power.size(); ++i) {
    const PowerRow& row = result.power[i];
    ASSERT_TRUE(row.seeds);
    EXPECT_LE(row.smallest_difference, 0.02);
    const double sxx = row.sizes * (row.sizes * row.sizes - 1) / 12.0;
    if (*row.seeds > 2) {
      EXPECT_GT(SmallestDifference(*result.seed_sd, sxx, row.sizes, *row.seeds - 1), 0.02);
    }
    if (i > 0) {
      EXPECT_LE(*row.seeds, *result.power[i - 1].seeds);
    }
  }
}

TEST(Suggest, RefusalsSayWhy) {
  const records::Table table = Priced(Grid("a", {}) + Grid("b", {}));
  EXPECT_THAT(Suggest(table, {}).error().message, HasSubstr("budget"));
  EXPECT_THAT(Suggest(table, {.budget_flops = NAN}).error().message, HasSubstr("budget"));
  EXPECT_THAT(Suggest(table, {.budget_flops = 1, .cap = 1}).error().message, HasSubstr("cap"));
  EXPECT_THAT(Suggest(table, {.budget_flops = 1, .delta = -1}).error().message, HasSubstr("delta"));
  EXPECT_THAT(Suggest(table, {.architectures = {"c"}, .budget_flops = 1}).error().message, HasSubstr("'c'"));
  EXPECT_THAT(Suggest(Grid("a", {}), {.budget_flops = 1}).error().message, HasSubstr("training_flops"));
  EXPECT_THAT(Suggest(Priced(Grid("a", {.seeds = 1})), {.budget_flops = 1}).error().message, HasSubstr("second seed"));
  records::Table uneven = Priced(Grid("a", {.sizes = 3, .seeds = 2}));
  uneven.pop_back();
  EXPECT_THAT(Suggest(uneven, {.budget_flops = 1e10}).error().message, HasSubstr("100T"));
}

TEST(Suggest, ASlopeThatCannotBeNarrowedDoesNotHoldUpTheOthers) {
  const records::Table table = Priced(Grid("a", {}) + Grid("one seed", {.seeds = 1}) + Grid("one size", {.sizes = 1}));
  const SuggestResult result = Suggest(table, {.budget_flops = 1e15}).value();
  EXPECT_THAT(result.slopes[0].refused, IsEmpty());
  EXPECT_THAT(result.slopes[1].refused, HasSubstr("replicate"));
  EXPECT_THAT(result.slopes[2].refused, HasSubstr("two sizes"));
  for (const SuggestedCell& cell : result.cells) EXPECT_EQ(cell.architecture, "a");
}

TEST(Suggest, AThousandArchitectures) {
  records::Table table;
  for (int i = 0; i < 1000; ++i) table = std::move(table) + Priced(Grid("a" + std::to_string(i), {.sizes = 2}));
  const SuggestResult result = Suggest(table, {.budget_flops = 2e15}).value();
  EXPECT_LE(result.flops, 2e15 * 1.001);
  EXPECT_THAT(result.slopes, SizeIs(1000));
}

}  // namespace
}  // namespace allometry::analysis
