#include <gtest/gtest.h>

#include "analysis/frontier.h"

namespace allometry::analysis {
namespace {

TEST(FrontierThreads, HowManyDoesNotChangeAResult) {
  std::vector<FrontierCell> cells;
  for (int i = 0; i < 30; ++i) cells.push_back({"c", {1.0 + i % 7, 1.0 + i % 5}, {0.1 * i, 0.1 * i + 0.6}, i % 2});
  const Frontier one = FindFrontier(cells, {.draws = 2'000, .threads = 1});
  const Frontier four = FindFrontier(cells, {.draws = 2'000, .threads = 4});
  for (size_t i = 0; i < cells.size(); ++i) {
    EXPECT_EQ(one.points[i].probability, four.points[i].probability);
    EXPECT_EQ(one.points[i].rank_probabilities, four.points[i].rank_probabilities);
  }
}

}  // namespace
}  // namespace allometry::analysis
