#include "analysis/frontier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace allometry::analysis {
namespace {

std::vector<bool> OnFrontier(const std::vector<FrontierCell>& cells) {
  std::vector<bool> on;
  for (const FrontierPoint& p : FindFrontier(cells, {.draws = 0}).points) on.push_back(p.on_frontier);
  return on;
}

// Whether no other cell costs no more, is no worse, and is better in one.
bool IsUnbeaten(const std::vector<FrontierCell>& cells, size_t i) {
  return std::ranges::none_of(cells, [&](const FrontierCell& other) {
    bool no_worse = other.qualities[0] >= cells[i].qualities[0], better = other.qualities[0] > cells[i].qualities[0];
    for (size_t k = 0; k < other.costs.size(); ++k) {
      no_worse &= other.costs[k] <= cells[i].costs[k];
      better |= other.costs[k] < cells[i].costs[k];
    }
    return no_worse && better;
  });
}

TEST(Frontier, AgreesWithTheDefinitionOnRandomCellsWithTiesInOneToFourCosts) {
  std::mt19937 generator(7);
  std::uniform_int_distribution<int> small(0, 6);
  for (int round = 0; round < 2'000; ++round) {
    std::vector<FrontierCell> cells;
    for (int i = 0; i < 12; ++i) {
      FrontierCell& cell = cells.emplace_back(FrontierCell{"c", {}, {double(small(generator))}});
      for (int k = 0; k <= round % 4; ++k) cell.costs.push_back(small(generator));
    }
    const std::vector<bool> on = OnFrontier(cells);
    for (size_t i = 0; i < cells.size(); ++i) ASSERT_EQ(on[i], IsUnbeaten(cells, i)) << "round " << round;
  }
}

TEST(Frontier, NoConvexHull) {
  // The middle cell lies below the line between its neighbours, and no cell beats it.
  EXPECT_EQ(OnFrontier({{"a", {1}, {0}}, {"b", {2}, {0.1}}, {"c", {3}, {10}}}), (std::vector<bool>{true, true, true}));
}

TEST(Frontier, ProbabilityIsOneForClearCellsAndAHalfForTwins) {
  const auto points = FindFrontier({{"cheap", {1}, {0.0, 0.01}},
                                    {"twin", {2}, {1.0, 1.01}},
                                    {"dearer twin", {3}, {1.0, 1.01}},
                                    {"bad", {4}, {-9, -9.01}}},
                                   {})
                          .points;
  EXPECT_DOUBLE_EQ(*points[0].probability, 1);
  EXPECT_DOUBLE_EQ(*points[1].probability, 1);
  EXPECT_NEAR(*points[2].probability, 0.5, 0.02) << "on the frontier exactly when its expected quality is the higher";
  EXPECT_DOUBLE_EQ(*points[3].probability, 0);
}

TEST(Frontier, EqualArgumentsGiveEqualDrawsAndAnotherSeedOthers) {
  const std::vector<FrontierCell> cells{{"a", {1}, {0, 0.4}}, {"b", {2}, {0.1, 0.3}}, {"c", {3}, {0.2, 0.5}}};
  const auto probability = [&](uint64_t seed) { return *FindFrontier(cells, {.seed = seed}).points[1].probability; };
  EXPECT_EQ(probability(1), probability(1));
  EXPECT_NE(probability(1), probability(2));
}

TEST(Frontier, WithoutReplicatesThereIsNoProbabilityUnlessAnSdIsGiven) {
  const std::vector<FrontierCell> cells{{"a", {1}, {0}}, {"b", {2}, {0}}};
  EXPECT_FALSE(FindFrontier(cells, {}).points[0].probability);
  EXPECT_NEAR(*FindFrontier(cells, {.seed_sd = 0.1}).points[1].probability, 0.5, 0.02);
}

TEST(Frontier, RanksOfARegionSumToOneAndFollowTheMeans) {
  const Frontier found =
      FindFrontier({{"a", {1}, {0.0, 0.2}, 0}, {"b", {2}, {0.3, 0.5}, 0}, {"c", {3}, {9, 9.2}, 1}}, {});
  EXPECT_NEAR(found.points[0].rank_probabilities[0] + found.points[1].rank_probabilities[0], 1, 1e-12);
  EXPECT_NEAR(found.points[0].rank_probabilities[0] + found.points[0].rank_probabilities[1], 1, 1e-12);
  EXPECT_GT(found.points[1].rank_probabilities[0], 0.8);
  EXPECT_EQ(found.points[2].rank_probabilities, std::vector<double>{1}) << "alone in its region";
}

// Two cells that differ by delta: the probability that the dearer one is better is that of a t variable with the pooled
// degrees of freedom, here 2, whose distribution has a closed form: F(t) = 1/2 + t / (2 sqrt(2 + t^2)).
TEST(Frontier, ProbabilityOfTwoCellsIsStudentsT) {
  const double delta = 0.3, s = std::sqrt((0.02 + 0.02) / 2);
  const Frontier found =
      FindFrontier({{"a", {1}, {-0.1, 0.1}}, {"b", {2}, {delta - 0.1, delta + 0.1}}}, {.draws = 200'000});
  const double t = delta / (s * std::sqrt(2.0 / 2));
  EXPECT_DOUBLE_EQ(found.degrees_of_freedom, 2);
  EXPECT_NEAR(*found.seed_sd, s, 1e-12);
  EXPECT_NEAR(*found.points[1].probability, 0.5 + t / (2 * std::sqrt(2 + t * t)), 0.004);
}

// Cells far below the frontier are not drawn; with them or without, the others' probabilities are alike.
TEST(Frontier, CellsThatCannotMatterChangeNoProbability) {
  std::vector<FrontierCell> cells{{"a", {1}, {0, 0.2}}, {"b", {2}, {0.1, 0.3}}, {"c", {3}, {0.15, 0.4}}};
  const Frontier alone = FindFrontier(cells, {.draws = 100'000});
  for (int i = 0; i < 40; ++i) cells.push_back({"far", {4.0 + i}, {-30, -29.8}, 1});
  const Frontier among = FindFrontier(cells, {.draws = 100'000});
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(*among.points[i].probability, *alone.points[i].probability, 0.05);
  EXPECT_EQ(*among.points[9].probability, 0);
  EXPECT_EQ(among.points[9].rank_probabilities.size(), kMostRanks) << "ranks beyond the tenth are not counted";
  double first = 0;
  for (const FrontierPoint& point : among.points) first += point.name == "far" ? point.rank_probabilities[0] : 0;
  EXPECT_NEAR(first, 1, 1e-9) << "those of a region far below are drawn for its ranks";
}

// More costs let more cells stay: "b" costs more operations and less memory.
TEST(Frontier, ACellThatIsCheaperInOneCostIsNotBeaten) {
  const std::vector<FrontierCell> cells{
      {"a", {1, 8}, {1.0, 1.1}}, {"b", {2, 4}, {0.0, 0.1}}, {"c", {3, 9}, {0.5, 0.6}}};
  EXPECT_EQ(OnFrontier(cells), (std::vector<bool>{true, true, false}));
  const Frontier found = FindFrontier(cells, {});
  EXPECT_EQ(*found.points[1].probability, 1) << "no cell costs less in both";
  EXPECT_LT(*found.points[2].probability, 0.05);
}

TEST(Frontier, EqualReplicatesGiveNoProbability) {
  EXPECT_FALSE(FindFrontier({{"a", {1}, {1, 1}}, {"b", {2}, {2, 2}}}, {}).points[0].probability);
}

}  // namespace
}  // namespace allometry::analysis
