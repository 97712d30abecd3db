#include "worker/trainer/data/span_corruption.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <vector>

namespace allometry::trainer {
namespace {

constexpr int64_t kPieces = 32'000;

struct Example {
  std::vector<int32_t> inputs, targets;
};

Example Corrupted(const SpanCorruption& corruption, const std::vector<int32_t>& raw, KeyedRandom random) {
  Example e{std::vector<int32_t>(corruption.lengths().inputs), std::vector<int32_t>(corruption.lengths().targets)};
  corruption.Corrupt(raw, random, e.inputs, e.targets);
  return e;
}

std::vector<int32_t> Numbered(int64_t n) {
  std::vector<int32_t> raw(n);
  std::iota(raw.begin(), raw.end(), 3);
  return raw;
}

bool IsSentinel(int32_t id) { return id >= kPieces && id < kPieces + kSentinels; }

// Puts each target span back where its sentinel stands in the inputs.
std::vector<int32_t> Restored(const Example& e) {
  std::map<int32_t, std::vector<int32_t>> spans;
  int32_t sentinel = -1;
  for (int32_t id : e.targets) {
    if (id == kEos) break;
    if (IsSentinel(id)) {
      sentinel = id;
    } else {
      spans[sentinel].push_back(id);
    }
  }
  std::vector<int32_t> raw;
  for (int32_t id : e.inputs) {
    if (id == kEos) break;
    if (IsSentinel(id))
      raw.insert(raw.end(), spans[id].begin(), spans[id].end());
    else
      raw.push_back(id);
  }
  return raw;
}

TEST(SpanCorruption, T5LengthsAndSentinels) {
  const SpanCorruption corruption = *SpanCorruption::Create(512, 0.15, 3.0, kPieces);
  EXPECT_EQ(corruption.lengths().raw, 568);
  EXPECT_EQ(corruption.lengths().inputs, 512);
  EXPECT_EQ(corruption.lengths().targets, 114);
  EXPECT_EQ(corruption.Sentinel(0), 32'099);
  EXPECT_EQ(corruption.Sentinel(99), 32'000);
}

TEST(SpanCorruption, NothingIsLostAtManyLengths) {
  for (int64_t length : {4, 5, 7, 16, 64, 128, 333, 512}) {
    const SpanCorruption corruption = *SpanCorruption::Create(length, 0.15, 3.0, kPieces);
    const std::vector<int32_t> raw = Numbered(corruption.lengths().raw);
    for (uint64_t row = 0; row < 50; ++row)
      ASSERT_EQ(Restored(Corrupted(corruption, raw, KeyedRandom(0, 0, row))), raw) << length << ' ' << row;
  }
}

TEST(SpanCorruption, Layout) {
  const SpanCorruption corruption = *SpanCorruption::Create(128, 0.15, 3.0, kPieces);
  const std::vector<int32_t> raw = Numbered(corruption.lengths().raw);
  for (uint64_t row = 0; row < 200; ++row) {
    const Example e = Corrupted(corruption, raw, KeyedRandom(5, 1, row));
    EXPECT_EQ(e.inputs.back(), kEos);
    EXPECT_EQ(e.targets.back(), kEos);
    EXPECT_EQ(e.inputs.front(), raw.front()) << "a sequence starts unmasked";
    EXPECT_EQ(e.targets.front(), corruption.Sentinel(0));
    EXPECT_FALSE(IsSentinel(e.targets[e.targets.size() - 2])) << "no closing sentinel";
    int64_t next = 0;
    for (int32_t id : e.inputs) {
      if (!IsSentinel(id)) continue;
      EXPECT_EQ(id, corruption.Sentinel(next++));
    }
    EXPECT_EQ(next, corruption.spans());
  }
}

TEST(SpanCorruption, IsAPureFunctionOfSeedStepAndRow) {
  const SpanCorruption corruption = *SpanCorruption::Create(128, 0.15, 3.0, kPieces);
  const std::vector<int32_t> raw = Numbered(corruption.lengths().raw);
  const auto inputs = [&](uint64_t seed, uint64_t step, uint64_t row) {
    return Corrupted(corruption, raw, KeyedRandom(seed, step, row)).inputs;
  };
  EXPECT_EQ(inputs(1, 2, 3), inputs(1, 2, 3));
  EXPECT_NE(inputs(1, 2, 3), inputs(1, 2, 4));
  EXPECT_NE(inputs(1, 2, 3), inputs(1, 3, 3));
  EXPECT_NE(inputs(1, 2, 3), inputs(2, 2, 3));
}

// Two spans of a noise of four: first span lengths 1, 2, 3 are equally likely.
TEST(SpanCorruption, EveryCutIsEquallyLikely) {
  const SpanCorruption corruption = *SpanCorruption::Create(16, 0.25, 2.0, kPieces);
  ASSERT_EQ(corruption.spans(), 2);
  ASSERT_EQ(corruption.lengths().targets, 4 + 2 + 1);
  const std::vector<int32_t> raw = Numbered(corruption.lengths().raw);
  std::map<int, int> first_lengths;
  constexpr int kDraws = 30'000;
  for (uint64_t row = 0; row < kDraws; ++row) {
    const Example e = Corrupted(corruption, raw, KeyedRandom(9, 0, row));
    int length = 0;
    while (!IsSentinel(e.targets[1 + length])) ++length;
    ++first_lengths[length];
  }
  ASSERT_EQ(first_lengths.size(), 3u);
  for (const auto& [length, count] : first_lengths) EXPECT_NEAR(count, kDraws / 3, 5 * std::sqrt(kDraws / 3.0));
}

TEST(SpanCorruption, TextIsNeitherPaddingNorMarks) {
  const SpanCorruption corruption = *SpanCorruption::Create(128, 0.15, 3.0, kPieces);
  EXPECT_FALSE(corruption.IsText(kPad));
  EXPECT_FALSE(corruption.IsText(kEos));
  EXPECT_FALSE(corruption.IsText(corruption.Sentinel(0)));
  EXPECT_FALSE(corruption.IsText(corruption.Sentinel(99)));
  EXPECT_TRUE(corruption.IsText(kUnknown));
  EXPECT_TRUE(corruption.IsText(kPieces - 1));
}

TEST(SpanCorruption, ImpossibleSettingsAreExplained) {
  const auto message = [](int64_t length, double density, double span) {
    return SpanCorruption::Create(length, density, span, kPieces).error().message;
  };
  EXPECT_THAT(message(4096, 0.15, 3.0), ::testing::HasSubstr("sentinels"));
  EXPECT_THAT(message(128, 0.0, 3.0), ::testing::HasSubstr("noise_density"));
  EXPECT_THAT(message(128, 0.15, 0.5), ::testing::HasSubstr("mean_span_length"));
  EXPECT_THAT(message(32, 0.9, 1.0), ::testing::HasSubstr("lower the density"));
}

}  // namespace
}  // namespace allometry::trainer
