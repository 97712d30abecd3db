#include "analysis/pareto.h"

#include <gtest/gtest.h>

#include <random>

namespace allometry::analysis {
namespace {

std::vector<bool> Frontier(const std::vector<ParetoCell>& cells) {
  std::vector<bool> on;
  for (const ParetoPoint& p : ParetoFrontier(cells, {.draws = 0})) on.push_back(p.on_frontier);
  return on;
}

TEST(Pareto, AgreesWithTheDefinitionOnRandomCellsWithTies) {
  std::mt19937 generator(7);
  std::uniform_int_distribution<int> small(0, 6);
  for (int round = 0; round < 500; ++round) {
    std::vector<ParetoCell> cells;
    for (int i = 0; i < 12; ++i) cells.push_back({"c", double(small(generator)), {double(small(generator))}});
    const std::vector<bool> on = Frontier(cells);
    for (size_t i = 0; i < cells.size(); ++i) {
      bool beaten = false;
      for (const ParetoCell& other : cells) {
        const bool no_worse = other.cost <= cells[i].cost && other.qualities[0] >= cells[i].qualities[0];
        const bool better = other.cost < cells[i].cost || other.qualities[0] > cells[i].qualities[0];
        beaten |= no_worse && better;
      }
      EXPECT_EQ(on[i], !beaten);
    }
  }
}

TEST(Pareto, NoConvexHull) {
  // The middle cell lies below the line between its neighbours, and no cell beats it.
  EXPECT_EQ(Frontier({{"a", 1, {0}}, {"b", 2, {0.1}}, {"c", 3, {10}}}), (std::vector<bool>{true, true, true}));
}

TEST(Pareto, ProbabilityIsOneForClearCellsAndAHalfForTwins) {
  const auto points = ParetoFrontier(
      {{"cheap", 1, {0.0, 0.01}}, {"twin", 2, {1.0, 1.01}}, {"dearer twin", 3, {1.0, 1.01}}, {"bad", 4, {-9, -9.01}}}, {});
  EXPECT_DOUBLE_EQ(*points[0].probability, 1);
  EXPECT_DOUBLE_EQ(*points[1].probability, 1);
  EXPECT_NEAR(*points[2].probability, 0.5, 0.02) << "on the frontier exactly when its expected quality is the higher";
  EXPECT_DOUBLE_EQ(*points[3].probability, 0);
}

TEST(Pareto, EqualArgumentsGiveEqualDrawsAndAnotherSeedOthers) {
  const std::vector<ParetoCell> cells{{"a", 1, {0, 0.4}}, {"b", 2, {0.1, 0.3}}, {"c", 3, {0.2, 0.5}}};
  const auto probability = [&](uint64_t seed) { return *ParetoFrontier(cells, {.seed = seed})[1].probability; };
  EXPECT_EQ(probability(1), probability(1));
  EXPECT_NE(probability(1), probability(2));
}

TEST(Pareto, WithoutReplicatesThereIsNoProbabilityUnlessAnSdIsGiven) {
  const std::vector<ParetoCell> cells{{"a", 1, {0}}, {"b", 2, {0}}};
  EXPECT_FALSE(ParetoFrontier(cells, {})[0].probability);
  EXPECT_NEAR(*ParetoFrontier(cells, {.seed_sd = 0.1})[1].probability, 0.5, 0.02);
}

}  // namespace
}  // namespace allometry::analysis
