#include "worker/trainer/data/row_schedule.h"

#include <gtest/gtest.h>

#include <numeric>

namespace allometry::trainer {
namespace {

TEST(RowSchedule, OnePartHasEveryRow) {
  const RowSchedule schedule(std::vector<double>{0.3});
  for (uint64_t row : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 50}) {
    EXPECT_EQ(schedule(row).part, 0u);
    EXPECT_EQ(schedule(row).index, row);
    EXPECT_EQ(schedule.Count(0, row), row);
  }
}

TEST(RowSchedule, EqualRatesAlternate) {
  const RowSchedule schedule(std::vector<double>{5, 5});
  for (uint64_t row = 0; row < 100; ++row) {
    EXPECT_EQ(schedule(row).part, row % 2) << row;
    EXPECT_EQ(schedule(row).index, row / 2) << row;
  }
}

// After any number of rows the shares are what the rates say, to (K - 1) / 2 rows; so they are over any window, to
// twice as much. Places count up within a part.
TEST(RowSchedule, SharesFollowTheRates) {
  for (const std::vector<double>& rates :
       {std::vector<double>{1, 2}, {0.7, 0.2, 0.1}, {1, 1, 1, 1, 1}, {1e-3, 5, 0.25, 100, 3.3, 3.3, 1e-9}}) {
    const RowSchedule schedule(rates);
    const double total = std::accumulate(rates.begin(), rates.end(), 0.0);
    const double bound = static_cast<double>(rates.size() - 1) / 2 + 1e-6;
    std::vector<uint64_t> counts(rates.size());
    for (uint64_t row = 0; row < 20'000; ++row) {
      const auto [part, index] = schedule(row);
      ASSERT_EQ(index, counts[part]++) << row;
      for (size_t p = 0; p < rates.size(); ++p) {
        ASSERT_EQ(schedule.Count(p, row + 1), counts[p]) << row;
        ASSERT_NEAR(static_cast<double>(counts[p]), static_cast<double>(row + 1) * rates[p] / total, bound) << row;
      }
    }
  }
}

TEST(RowSchedule, HoldsFarOut) {
  const RowSchedule schedule(std::vector<double>{1, 2, 4});
  constexpr uint64_t kRows = uint64_t{7} << 45;
  EXPECT_NEAR(static_cast<double>(schedule.Count(0, kRows)), static_cast<double>(uint64_t{1} << 45), 2);
  EXPECT_NEAR(static_cast<double>(schedule.Count(1, kRows)), static_cast<double>(uint64_t{2} << 45), 2);
  uint64_t sum = 0;
  for (size_t p = 0; p < 3; ++p) sum += schedule.Count(p, kRows);
  EXPECT_EQ(sum, kRows);
  const auto [part, index] = schedule(kRows);
  EXPECT_EQ(index, schedule.Count(part, kRows));
}

}  // namespace
}  // namespace allometry::trainer
