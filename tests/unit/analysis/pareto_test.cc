#include "analysis/pareto.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

ParetoResult ParetoOf(const records::Table& table, const ParetoRequest& request = {}) {
  auto result = Pareto(table, request);
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
  return std::move(result).value();
}

const ParetoPoint& Point(const ParetoResult& result, const std::string& cell) {
  return *std::ranges::find(result.points, cell, &ParetoPoint::cell);
}

TEST(Pareto, MeansOverSeedsByRisingCost) {
  const ParetoResult result = ParetoOf(Grid("a", {}) + Grid("b", {.first_cost = 2e6}));
  ASSERT_THAT(result.points, SizeIs(6));
  EXPECT_EQ(result.points[0].cell, "a-z0");
  EXPECT_EQ(result.points[1].cell, "b-z0");
  EXPECT_EQ(result.points[0].seeds, 2);
  EXPECT_NEAR(result.points[0].quality, -7, 1e-12) << "10 - 0.5 * 6, and higher is better";
  EXPECT_FALSE(result.points[1].on_frontier) << "twice the cost of a-z0 for the same loss";
  EXPECT_TRUE(Point(result, "a-z2").on_frontier);
}

TEST(Pareto, QualityMayBeDownstreamOrATask) {
  const records::Table table = Grid("a", {.sizes = 2});
  EXPECT_NEAR(ParetoOf(table, {.quality = "downstream"}).points[1].quality, 0.5, 1e-12);
  EXPECT_NEAR(ParetoOf(table, {.quality = "gloss"}).points[1].quality, 0.55, 1e-12);
  const auto wrong = Pareto(table, {.quality = "glos"});
  EXPECT_THAT(wrong.error().message, HasSubstr("did you mean 'gloss'"));
}

TEST(Pareto, CostsReadTheirMetric) {
  records::Table table = Grid("a", {.sizes = 2});
  for (records::Record& r : table) r.metrics["peak_memory_bytes"] = 7 * r.metrics["forward_flops"];
  EXPECT_DOUBLE_EQ(ParetoOf(table, {.costs = {Cost::kMemory}}).points[0].cost(), 7e6);
  EXPECT_DOUBLE_EQ(ParetoOf(table, {.costs = {Cost::kSeconds}}).points[0].cost(), 1);
  const auto missing = Pareto(table, {.costs = {Cost::kActiveParameters}});
  EXPECT_EQ(missing.error().code, common::ErrorCode::kFailedPrecondition);
  EXPECT_THAT(missing.error().message, HasSubstr("no active_parameters was recorded"));
}

TEST(Pareto, TheBestOfEachRegionHasTheLargestProbability) {
  // b is better where it is cheap, a where it is dear.
  const ParetoResult result = ParetoOf(Grid("a", {.slope = 0.8}) + Grid("b", {.level = 8.9, .slope = 0.6}));
  ASSERT_THAT(result.regions, SizeIs(3));
  for (const ParetoRegion& region : result.regions) {
    EXPECT_EQ(region.cells, 2);
    double sum = 0;
    for (const RegionBest& best : region.best) sum += best.probability;
    EXPECT_NEAR(sum, 1, 1e-9);
  }
  EXPECT_EQ(result.regions.front().best.front().architecture, "a");
  const ParetoResult crossed = ParetoOf(Grid("a", {.slope = 0.8}) + Grid("b", {.level = 8.5, .slope = 0.6}));
  EXPECT_EQ(crossed.regions.front().best.front().architecture, "b");
  EXPECT_EQ(crossed.regions.back().best.front().architecture, "a");
}

TEST(Pareto, OwnRegionEdges) {
  const ParetoResult result = ParetoOf(Grid("a", {.sizes = 4}), {.region_edges = {1e7}});
  ASSERT_THAT(result.regions, SizeIs(2));
  EXPECT_EQ(result.regions[0].cells, 1) << "an edge belongs to the region above it";
  EXPECT_EQ(result.regions[1].cells, 3);
  EXPECT_EQ(Pareto(Grid("a", {}), {.region_edges = {3, 2}}).error().code, common::ErrorCode::kInvalidArgument);
}

TEST(Pareto, WithoutReplicatesMembershipComesWithoutProbability) {
  const ParetoResult result = ParetoOf(Grid("a", {.seeds = 1}));
  EXPECT_TRUE(result.points[0].on_frontier);
  EXPECT_FALSE(result.points[0].probability);
  EXPECT_THAT(result.no_probability, HasSubstr("replicate"));
  EXPECT_THAT(result.regions[0].best, IsEmpty());
  EXPECT_TRUE(ParetoOf(Grid("a", {.seeds = 1}), {.sd = 0.1}).points[0].probability);
}

TEST(Pareto, ADivergedCellIsListedAndNoPoint) {
  records::Table table = Grid("a", {});
  table.push_back(Cell("b", "z0", 0, 1e5, 1));
  table.back().state = records::CellState::kDiverged;
  const ParetoResult result = ParetoOf(table);
  EXPECT_THAT(result.points, SizeIs(3));
  ASSERT_THAT(result.left_out, SizeIs(1));
  EXPECT_EQ(result.left_out[0].reason, "diverged");
}

TEST(Pareto, TimesOnUnlikeDevicesAreRefused) {
  records::Table table = Grid("a", {});
  table[0].device = "another";
  EXPECT_THAT(Pareto(table, {.costs = {Cost::kSeconds}}).error().message, HasSubstr("another"));
  EXPECT_TRUE(Pareto(table, {}).ok());
}

TEST(Pareto, AtChanceMarksThePointsWhoseQualityHoldsTheScore) {
  records::Table table = Grid("a", {});
  table[0].scores["sense"].at_chance = true;
  EXPECT_TRUE(ParetoOf(table, {.quality = "downstream"}).points[0].at_chance);
  EXPECT_TRUE(ParetoOf(table, {.quality = "sense"}).points[0].at_chance);
  EXPECT_FALSE(ParetoOf(table, {.quality = "gloss"}).points[0].at_chance);
  EXPECT_FALSE(ParetoOf(table).points[0].at_chance);
}

TEST(Pareto, BadNumbersAreRefused) {
  const records::Table table = Grid("a", {});
  EXPECT_EQ(Pareto(table, {.sd = 0}).error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(Pareto(table, {.draws = -1}).error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(ParseCost("flop").error().message, HasSubstr("did you mean 'flops'"));
}

// "a" is cheaper in FLOPs, "b" in memory; without memory as a cost b is beaten.
TEST(Pareto, SeveralCostsLetThoseStayThatAreCheaperInOne) {
  records::Table table = Grid("a", {}) + Grid("b", {.first_cost = 2e6});
  for (records::Record& r : table) r.metrics["peak_memory_bytes"] = r.architecture == "a" ? 9e9 : 1e9;
  EXPECT_FALSE(Point(ParetoOf(table), "b-z0").on_frontier);
  const ParetoResult both = ParetoOf(table, {.costs = {Cost::kFlops, Cost::kMemory}});
  EXPECT_TRUE(Point(both, "b-z0").on_frontier);
  EXPECT_DOUBLE_EQ(*Point(both, "b-z0").probability, 1) << "nothing is cheaper in both";
  EXPECT_THAT(Point(both, "b-z0").costs, ::testing::ElementsAre(2e6, 1e9));
  table[0].metrics.erase("peak_memory_bytes");
  EXPECT_EQ(ParetoOf(table, {.costs = {Cost::kFlops, Cost::kMemory}}).left_out[0].measure, "memory");
}

TEST(Pareto, CostsAreReadFromOneText) {
  EXPECT_EQ(ParseCosts("").value(), std::vector<Cost>{Cost::kFlops});
  EXPECT_EQ(ParseCosts("memory,parameters").value(), (std::vector<Cost>{Cost::kMemory, Cost::kParameters}));
  EXPECT_THAT(ParseCosts("flops,memroy").error().message, HasSubstr("did you mean 'memory'"));
  EXPECT_THAT(ParseCosts("flops,flops").error().message, HasSubstr("named twice"));
  EXPECT_FALSE(Pareto(Grid("a", {}), {.costs = {}}).ok());
}

// Qualities -7, -6.5, -6 at 1e6, 1e7, 1e8: up to the dearest and the worst, one decade times half a nat is dominated.
TEST(Pareto, HypervolumeIsInDecadesTimesQuality) {
  const ParetoResult result = ParetoOf(Grid("a", {}));
  EXPECT_EQ(result.reference.costs, std::vector<double>{1e8});
  EXPECT_NEAR(result.reference.quality, -7, 1e-12);
  EXPECT_NEAR(*result.hypervolume, 0.5, 1e-9);
  EXPECT_NEAR(result.points[1].hypervolume, 0.5, 1e-9);
  const ParetoResult wider = ParetoOf(Grid("a", {}), {.reference = HypervolumeReference{{1e9}, -8}});
  EXPECT_NEAR(*wider.hypervolume, 3 * 1 + 2 * 0.5 + 1 * 0.5, 1e-9);
  EXPECT_FALSE(Pareto(Grid("a", {}), {.reference = HypervolumeReference{{1e9, 1}, -8}}).ok());
  EXPECT_FALSE(Pareto(Grid("a", {}), {.reference = HypervolumeReference{{0}, -8}}).ok());
}

}  // namespace
}  // namespace allometry::analysis
