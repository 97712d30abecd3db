#include "analysis/slopes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

SlopesResult Ok(const records::Table& table, const SlopesRequest& request = {}) {
  auto result = Slopes(table, request);
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
  return std::move(result).value();
}

const Slope& Get(const SlopesResult& result, Axis x, Axis y, size_t architecture = 0) {
  return *FindSlope(result.architectures.at(architecture), x, y);
}

const Slope& FU(const SlopesResult& result, size_t architecture = 0) {
  return Get(result, Axis::kFlops, Axis::kUpstream, architecture);
}

TEST(Slopes, RecoversTheSlopeOfUAgainstDecades) {
  const SlopesResult result = Ok(Grid("transformer", {}));
  EXPECT_NEAR(*FU(result).estimate.alpha, 0.5, 1e-12);
  EXPECT_NEAR(*Get(result, Axis::kFlops, Axis::kDownstream).estimate.alpha, 0.05, 1e-12);
  EXPECT_NEAR(*Get(result, Axis::kUpstream, Axis::kDownstream).estimate.alpha, 0.1, 1e-12);
  EXPECT_NEAR(*Get(result, Axis::kSeconds, Axis::kUpstream).estimate.alpha, 0.5, 1e-12);
  EXPECT_EQ(FU(result).cells, 6);
}

TEST(Slopes, LogLogGivesTheExponentOfTheLossWithItsSignTurned) {
  records::Table table;
  for (int i = 0; i < 4; ++i) {
    for (uint64_t seed = 0; seed < 2; ++seed)
      table.push_back(Cell("a", "z" + std::to_string(i), seed, 1e6 * std::pow(8, i),
                           5 * std::pow(8, -0.07 * i) * (seed ? 1.001 : 1 / 1.001)));
  }
  const SlopesResult result = Ok(table, {.transform = Transform::kLoglog});
  EXPECT_NEAR(*FU(result).estimate.alpha, 0.07, 1e-12);
}

TEST(Slopes, ConventionsReadTheirOwnMetric) {
  records::Table table = Grid("a", {});
  for (records::Record& r : table) {
    r.metrics["training_flops"] = std::pow(r.metrics["forward_flops"], 2);
    r.metrics["active_parameters"] = std::pow(r.metrics["parameters"], 0.5);
  }
  const SlopesResult result =
      Ok(table, {.flops = FlopConvention::kTraining, .parameters = ParameterConvention::kActive});
  EXPECT_NEAR(*FU(result).estimate.alpha, 0.25, 1e-12);
  EXPECT_NEAR(*Get(result, Axis::kParameters, Axis::kUpstream).estimate.alpha, 1.0, 1e-12);
}

TEST(Slopes, DivergedFailedAndUnfinishedCellsAreLeftOutAndListed) {
  records::Table table = Grid("a", {.sizes = 4, .seeds = 3});
  const double clean = *FU(Ok(table)).estimate.alpha;
  const std::vector<records::CellState> states{records::CellState::kDiverged, records::CellState::kFailed,
                                               records::CellState::kUnfinished};
  for (size_t i = 0; i < states.size(); ++i) {
    records::Record bad = Cell("a", "z1", 100 + i, 1e7, 1e3);
    bad.state = states[i];
    bad.reason = "loss is NaN";
    table.push_back(bad);
  }
  const SlopesResult result = Ok(table);
  EXPECT_DOUBLE_EQ(*FU(result).estimate.alpha, clean);
  ASSERT_THAT(result.left_out, SizeIs(3));
  EXPECT_EQ(result.left_out[0].cell, "study/a-z1-s100");
  EXPECT_EQ(result.left_out[0].reason, "diverged: loss is NaN");
  EXPECT_EQ(result.left_out[0].measure, "all");
}

TEST(Slopes, ADoneCellWithoutAFiniteLossIsLeftOutOfWhatNeedsIt) {
  records::Table table = Grid("a", {.sizes = 3, .seeds = 3});
  table[4].metrics["validation_loss"] = std::numeric_limits<double>::quiet_NaN();
  const SlopesResult result = Ok(table);
  EXPECT_EQ(FU(result).cells, 8);
  EXPECT_EQ(Get(result, Axis::kFlops, Axis::kDownstream).cells, 9);
  ASSERT_THAT(result.left_out, SizeIs(1)) << "once, however many slopes miss it";
  EXPECT_EQ(result.left_out[0].measure, "upstream");
  EXPECT_THAT(result.left_out[0].reason, HasSubstr("not finite"));
}

TEST(Slopes, DownstreamIsMissingWhenAnyWantedTaskIs) {
  records::Table table = Grid("a", {.sizes = 3, .seeds = 3});
  table[0].scores.erase("sense");
  table[1].scores.clear();
  table[1].finetune_state = records::CellState::kDiverged;
  table[1].finetune_reason = "loss spike";
  const SlopesResult both = Ok(table);
  EXPECT_EQ(Get(both, Axis::kFlops, Axis::kDownstream).cells, 7);
  EXPECT_EQ(FU(both).cells, 9);
  ASSERT_THAT(both.left_out, SizeIs(2));
  EXPECT_EQ(both.left_out[0].reason, "no score of sense");
  EXPECT_EQ(both.left_out[1].reason, "fine-tuning diverged: loss spike");
  EXPECT_EQ(Get(Ok(table, {.tasks = {"gloss"}}), Axis::kFlops, Axis::kDownstream).cells, 8);
}

TEST(Slopes, ASeedCountsOnce) {
  const records::Table table = Grid("a", {});
  records::Table doubled = table + table;
  for (size_t i = table.size(); i < doubled.size(); ++i) doubled[i].sweep = "again";
  const SlopesResult result = Ok(doubled);
  EXPECT_EQ(FU(result).cells, 6);
  EXPECT_DOUBLE_EQ(FU(result).estimate.variance, FU(Ok(table)).estimate.variance);
  EXPECT_THAT(result.left_out, SizeIs(6));
  EXPECT_THAT(result.left_out[0].reason, HasSubstr("study/a-z0-s0"));
}

TEST(Slopes, EqualResultsOfAllSeedsAreRefused) {
  const Slope slope = FU(Ok(Grid("a", {.noise = 0})));
  EXPECT_FALSE(slope.estimate.alpha);
  EXPECT_THAT(slope.estimate.refused, HasSubstr("same run"));
}

TEST(Slopes, OneSizeNamesWhatIsMissing) {
  const Slope slope = FU(Ok(Grid("a", {.sizes = 1})));
  EXPECT_FALSE(slope.estimate.alpha);
  EXPECT_THAT(slope.estimate.refused, HasSubstr("two sizes"));
}

TEST(Slopes, CellsOfOneSizeWithUnlikeCostsAreRefused) {
  records::Table table = Grid("a", {});
  table[1].metrics["forward_flops"] *= 2;
  const SlopesResult result = Ok(table);
  EXPECT_THAT(FU(result).estimate.refused, HasSubstr("z0"));
  EXPECT_TRUE(Get(result, Axis::kParameters, Axis::kUpstream).estimate.alpha) << "parameters agree";
}

TEST(Slopes, TimesOnUnlikeDevicesAreRefused) {
  records::Table table = Grid("a", {});
  table[1].device = "another";
  const SlopesResult result = Ok(table);
  EXPECT_THAT(Get(result, Axis::kSeconds, Axis::kUpstream).estimate.refused, HasSubstr("another"));
  EXPECT_TRUE(FU(result).estimate.alpha);
}

TEST(Slopes, AtChanceIsFlaggedAndNotDropped) {
  records::Table table = Grid("a", {});
  table[0].scores["sense"].at_chance = true;
  const SlopesResult result = Ok(table);
  const Slope& slope = Get(result, Axis::kFlops, Axis::kDownstream);
  EXPECT_TRUE(slope.estimate.HasFlag("at chance"));
  EXPECT_EQ(slope.cells, 6);
  EXPECT_EQ(slope.at_chance_cells, std::vector<std::string>{"study/a-z0-s0"});
  EXPECT_FALSE(FU(result).estimate.HasFlag("at chance"));
}

TEST(Slopes, APerfectScoreHasNoLogarithmOfItsError) {
  records::Table table = Grid("a", {.sizes = 3, .seeds = 3});
  table[8].scores["gloss"].value = table[8].scores["sense"].value = 1;
  const SlopesResult result = Ok(table, {.transform = Transform::kLoglog});
  EXPECT_EQ(Get(result, Axis::kFlops, Axis::kDownstream).cells, 8);
  EXPECT_THAT(result.left_out.at(0).reason, HasSubstr("perfect"));
}

TEST(Slopes, RangesThatDifferByMoreThanATenthOfADecadeAreFlagged) {
  const auto flagged = [](double factor) {
    const SlopesResult result = Ok(Grid("transformer", {}) + Grid("b", {.first_cost = 1e6 * factor}));
    EXPECT_FALSE(FU(result, 0).estimate.HasFlag("ranges differ")) << "the reference itself";
    return FU(result, 1).estimate.HasFlag("ranges differ");
  };
  EXPECT_FALSE(flagged(std::pow(10, 0.09)));
  EXPECT_TRUE(flagged(std::pow(10, 0.11)));
}

TEST(Comparisons, VerdictsFollowTheAdjustedValuesOfBothKinds) {
  const records::Table table = Grid("transformer", {.sizes = 5}) + Grid("same", {.sizes = 5, .slope = 0.5005}) +
                               Grid("worse", {.sizes = 5, .slope = 0.2});
  const SlopesResult result = Ok(table, {.baseline = "transformer"});
  const SlopeComparison& same = result.comparisons.at(0);
  const SlopeComparison& worse = result.comparisons.at(1);
  EXPECT_EQ(same.verdict, "no difference shown");
  EXPECT_EQ(worse.verdict, "differs (seeds and sizes)");
  EXPECT_NEAR(*worse.difference, -0.3, 1e-12);
  EXPECT_GE(*worse.p_seeds_holm, *worse.p_seeds);
}

TEST(Comparisons, CurvedLinesOverOneRangeDifferBySeedsOnly) {
  const records::Table table =
      Grid("transformer", {.sizes = 4, .bend = 0.1}) + Grid("worse", {.sizes = 4, .slope = 0.45, .bend = 0.1});
  const SlopeComparison c = Ok(table, {.baseline = "transformer"}).comparisons.at(0);
  EXPECT_EQ(c.verdict, "differs (seeds)") << "the deviations from the line are too large for the line intervals";
}

// One curve, seen over two ranges: straight lines would find two slopes, and the shared bend finds none.
TEST(Comparisons, OneCurveOverTwoRangesGetsNoVerdict) {
  const auto curve = [](const char* name, int first) {
    records::Table table;
    for (int i = first; i < first + 4; ++i) {
      const double decades = 0.5 * i, loss = 9 - 0.8 * decades + 0.1 * decades * decades;
      for (uint64_t seed = 0; seed < 3; ++seed)
        table.push_back(Cell(name, "z" + std::to_string(i), seed, 1e6 * std::pow(10, decades),
                             loss + 0.003 * (static_cast<double>(seed) - 1)));
    }
    return table;
  };
  const SlopeComparison c = Ok(curve("transformer", 0) + curve("b", 2), {.baseline = "transformer"}).comparisons.at(0);
  EXPECT_EQ(c.verdict, "no verdict");
  EXPECT_LT(*c.p_seeds, 1e-6) << "what straight lines would have said";
  ASSERT_TRUE(c.shared_curvature);
  // The overlap is 10^7 to 10^7.5; there d(-loss)/d(decades) = 0.8 - 0.2 * 1.25 for both.
  EXPECT_NEAR(c.shared_curvature->at, 7.25, 1e-9);
  EXPECT_NEAR(c.shared_curvature->first, 0.55, 1e-9);
  EXPECT_NEAR(c.shared_curvature->second, 0.55, 1e-9);
  EXPECT_NEAR(c.shared_curvature->bend, -0.1, 1e-9);
  EXPECT_LE(c.shared_curvature->difference_interval->low, 0);
  EXPECT_GE(c.shared_curvature->difference_interval->high, 0);
}

TEST(Comparisons, WithoutSeedsThereIsNoVerdict) {
  const records::Table table = Grid("transformer", {.seeds = 1, .bend = 0.01}) + Grid("b", {.bend = 0.01});
  const SlopeComparison c = Ok(table, {.baseline = "transformer"}).comparisons.at(0);
  EXPECT_EQ(c.verdict, "no verdict");
  EXPECT_THAT(c.reason, HasSubstr("no seed interval"));
  EXPECT_TRUE(c.p_line);
}

TEST(Comparisons, ARefusedSlopeHasNoDifference) {
  const SlopeComparison c =
      Ok(Grid("transformer", {}) + Grid("b", {.sizes = 1}), {.baseline = "transformer"}).comparisons.at(0);
  EXPECT_FALSE(c.difference);
  EXPECT_EQ(c.verdict, "no verdict");
}

TEST(Comparisons, AllPairsOnce) {
  const records::Table table = Grid("a", {}) + Grid("b", {}) + Grid("c", {}) + Grid("d", {});
  EXPECT_THAT(Ok(table, {.baseline = "*"}).comparisons, SizeIs(7 * 6));
  EXPECT_THAT(Ok(table, {.baseline = "b"}).comparisons, SizeIs(7 * 3));
  EXPECT_THAT(Ok(table).comparisons, SizeIs(0));
}

TEST(Slopes, MistakesInTheRequestAreNamed) {
  const records::Table table = Grid("transformer", {});
  const auto error = [&](const SlopesRequest& request) { return Slopes(table, request).error(); };
  EXPECT_EQ(error({.confidence = 95}).code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(error({.baseline = "transfomer"}).message, HasSubstr("did you mean 'transformer'"));
  EXPECT_THAT(error({.tasks = {"squad"}}).message, HasSubstr("gloss, sense"));
  EXPECT_THAT(error({.filter = "sise=z0"}).message, HasSubstr("did you mean 'size'"));
  EXPECT_EQ(error({.exclude = {"nobody"}}).code, common::ErrorCode::kNotFound);
  EXPECT_EQ(error({.filter = "size=none"}).code, common::ErrorCode::kFailedPrecondition);
  EXPECT_EQ(Slopes({}, {}).error().code, common::ErrorCode::kFailedPrecondition);
}

TEST(Slopes, FilterAndExclude) {
  const records::Table table = Grid("a", {.sizes = 4}) + Grid("b", {});
  const SlopesResult result = Ok(table, {.filter = "architecture=a", .exclude = {"a-z3-s0", "study/a-z3-s1"}});
  ASSERT_THAT(result.architectures, SizeIs(1));
  EXPECT_EQ(FU(result).points.size(), 3u);
  ASSERT_THAT(result.left_out, SizeIs(2));
  EXPECT_EQ(result.left_out[0].reason, "left out by the user");
}

// What a request with that task alone as D gives, for every task.
TEST(Slopes, OfATaskAreThoseOfDWhenItIsThatTask) {
  records::Table table = Grid("a", {}) + Grid("b", {.sizes = 4, .seeds = 3});
  table[0].scores["sense"].at_chance = true;
  const SlopesResult all = Slopes(table, {.baseline = "a", .per_task = true}).value();
  ASSERT_EQ(all.tasks.size(), 2u);
  for (const TaskSlopes& task : all.tasks) {
    const SlopesResult alone = Slopes(table, {.baseline = "a", .tasks = {task.task}}).value();
    for (size_t a = 0; a < 2; ++a) {
      ASSERT_EQ(task.architectures[a].slopes.size(), 3u);
      for (const Slope& slope : task.architectures[a].slopes) {
        const Slope& same = *FindSlope(alone.architectures[a], slope.x, Axis::kDownstream);
        EXPECT_EQ(slope.task, task.task);
        EXPECT_EQ(slope.estimate.alpha, same.estimate.alpha);
        EXPECT_EQ(slope.estimate.seed_interval->low, same.estimate.seed_interval->low);
        EXPECT_EQ(slope.estimate.line_interval->high, same.estimate.line_interval->high);
        EXPECT_EQ(slope.estimate.flags, same.estimate.flags);
        EXPECT_EQ(slope.at_chance_cells, same.at_chance_cells);
      }
    }
  }
  EXPECT_TRUE(Slopes(table, {}).value().tasks.empty()) << "only when asked for";
}

TEST(Slopes, HolmOfTasksRunsOverArchitecturesAndTasksTogether) {
  records::Table table = Grid("a", {}) + Grid("b", {}) + Grid("c", {});
  for (records::Record& r : table)
    if (r.architecture == "b") r.scores["sense"].value += 0.004 * std::log10(r.metrics["forward_flops"]);
  const SlopesResult result = Slopes(table, {.baseline = "a", .per_task = true}).value();
  ASSERT_EQ(result.task_comparisons.size(), 3u * 2 * 2) << "axes, tasks, architectures";
  std::vector<double> raw, adjusted;
  for (const SlopeComparison& c : result.task_comparisons) {
    if (c.x != Axis::kFlops) continue;
    raw.push_back(*c.p_seeds);
    adjusted.push_back(*c.p_seeds_holm);
  }
  EXPECT_EQ(raw.size(), 4u);
  EXPECT_EQ(adjusted, HolmAdjusted(raw));
}

TEST(Slopes, ACellWithoutATaskIsToldOnceForItAndOneWithoutScoresOnceForAll) {
  records::Table table = Grid("a", {});
  table[0].scores.erase("sense");
  table[1].scores.clear();
  const SlopesResult result = Slopes(table, {.per_task = true}).value();
  std::vector<std::string> told;
  for (const LeftOut& left : result.left_out) told.push_back(left.cell + " " + left.measure);
  EXPECT_THAT(told, ::testing::UnorderedElementsAre("study/a-z0-s0 downstream", "study/a-z0-s1 downstream",
                                                    "study/a-z0-s0 sense"));
}

TEST(Slopes, AllPairsOfAThousandArchitecturesAreRefusedAndABaselineIsNot) {
  records::Table table;
  for (int i = 0; i < 1000; ++i) {
    const records::Table one = Grid("a" + std::to_string(i), {.sizes = 2, .slope = 0.5 + 0.001 * i});
    table.insert(table.end(), one.begin(), one.end());
  }
  EXPECT_THAT(Slopes(table, {.baseline = "*"}).error().message, ::testing::HasSubstr("name one of them"));
  EXPECT_EQ(Slopes(table, {.baseline = "a7"}).value().comparisons.size(), 999u * 7);
}

}  // namespace
}  // namespace allometry::analysis
