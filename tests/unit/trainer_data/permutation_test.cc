#include "worker/trainer/data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "worker/trainer/data/random.h"

namespace allometry::trainer {
namespace {

TEST(Permutation, ReachesEveryIndexOnce) {
  for (uint64_t size : {1, 2, 3, 5, 16, 17, 1000, 4097}) {
    const Permutation permutation(size, 42);
    std::vector<int> seen(size, 0);
    for (uint64_t i = 0; i < size; ++i) {
      ASSERT_LT(permutation(i), size);
      ++seen[permutation(i)];
    }
    EXPECT_EQ(seen, std::vector<int>(size, 1)) << size;
  }
}

TEST(Permutation, KeysGiveDifferentOrders) {
  int fixed = 0;
  for (uint64_t i = 0; i < 1000; ++i) fixed += Permutation(1000, 1)(i) == Permutation(1000, 2)(i);
  EXPECT_LT(fixed, 20) << "about one agreement is expected";
}

// Chi-square over (index bucket, image bucket): 49 + 9 * 9 - ... degrees; a 10 x 10 table has 81 with standard
// deviation sqrt(162); five of them leave no room for a false alarm with a fixed key.
TEST(Permutation, ImagesAreSpreadEvenly) {
  constexpr int kBuckets = 10, kSize = 100'000;
  const Permutation permutation(kSize, 7);
  std::vector<double> table(kBuckets * kBuckets, 0);
  for (int i = 0; i < kSize; ++i) ++table[i * kBuckets / kSize * kBuckets + permutation(i) * kBuckets / kSize];
  double chi_square = 0;
  const double expected = double(kSize) / table.size();
  for (double count : table) chi_square += (count - expected) * (count - expected) / expected;
  EXPECT_LT(chi_square, 81 + 5 * std::sqrt(2.0 * 81));
}

TEST(KeyedRandom, IsAPureFunctionOfItsKey) {
  KeyedRandom a(1, 2, 3), b(1, 2, 3), other_row(1, 2, 4), other_step(1, 3, 3), other_seed(2, 2, 3);
  const uint64_t first = a.Next();
  EXPECT_EQ(first, b.Next());
  EXPECT_NE(first, other_row.Next());
  EXPECT_NE(first, other_step.Next());
  EXPECT_NE(first, other_seed.Next());
}

TEST(KeyedRandom, BelowIsInRangeAndUniform) {
  KeyedRandom random(1, 1, 1);
  std::vector<int> counts(7, 0);
  for (int i = 0; i < 70'000; ++i) ++counts[random.Below(7)];
  for (int count : counts) EXPECT_NEAR(count, 10'000, 5 * std::sqrt(10'000.0));
}

}  // namespace
}  // namespace allometry::trainer
