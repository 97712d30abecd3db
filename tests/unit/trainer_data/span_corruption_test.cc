#include "worker/trainer/data/span_corruption.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <tuple>
#include <vector>

#include "tests/unit/trainer_data/token_fixture.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kVocabulary = 32'000;

struct SpanExample {
  Ids inputs, targets;
};

SpanCorruption MakeSpans(int64_t input_length, double noise_density = 0.15, double mean_span_length = 3) {
  return {{.input_length = input_length, .noise_density = noise_density, .mean_span_length = mean_span_length},
          kVocabulary};
}

SpanExample Corrupted(const SpanCorruption& corruption, const Ids& raw, KeyedRandom random) {
  SpanExample e{Ids(corruption.lengths().inputs), Ids(corruption.lengths().targets)};
  corruption.Apply(raw, random, e.inputs, e.targets);
  return e;
}

Ids NumberedIds(int64_t n) {
  Ids raw(n);
  std::iota(raw.begin(), raw.end(), 3);
  return raw;
}

bool IsSentinel(int32_t id) { return id >= kVocabulary && id < kVocabulary + kSentinels; }

TEST(SpanCorruption, T5LengthsAndSentinels) {
  const SpanCorruption corruption = MakeSpans(512);
  EXPECT_EQ(corruption.lengths().raw, 568);
  EXPECT_EQ(corruption.lengths().inputs, 512);
  EXPECT_EQ(corruption.lengths().targets, 114);
  EXPECT_EQ(corruption.Sentinel(0), 32'099);
  EXPECT_EQ(corruption.Sentinel(99), 32'000);
}

TEST(SpanCorruption, NothingIsLostAtManyLengths) {
  for (int64_t length : {4, 5, 7, 16, 64, 128, 333, 512}) {
    const SpanCorruption corruption = MakeSpans(length);
    const Ids raw = NumberedIds(corruption.lengths().raw);
    for (uint64_t row = 0; row < 50; ++row) {
      const SpanExample e = Corrupted(corruption, raw, KeyedRandom(0, 0, row));
      ASSERT_EQ(Restored(corruption, e.inputs, e.targets), raw) << length << ' ' << row;
    }
  }
}

TEST(SpanCorruption, Layout) {
  const SpanCorruption corruption = MakeSpans(128);
  const Ids raw = NumberedIds(corruption.lengths().raw);
  for (uint64_t row = 0; row < 200; ++row) {
    const SpanExample e = Corrupted(corruption, raw, KeyedRandom(5, 1, row));
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
  const SpanCorruption corruption = MakeSpans(128);
  const Ids raw = NumberedIds(corruption.lengths().raw);
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
  const SpanCorruption corruption = MakeSpans(16, 0.25, 2);
  ASSERT_EQ(corruption.spans(), 2);
  ASSERT_EQ(corruption.lengths().targets, 4 + 2 + 1);
  const Ids raw = NumberedIds(corruption.lengths().raw);
  std::map<int, int> first_lengths;
  constexpr int kDraws = 30'000;
  for (uint64_t row = 0; row < kDraws; ++row) {
    const SpanExample e = Corrupted(corruption, raw, KeyedRandom(9, 0, row));
    int length = 0;
    while (!IsSentinel(e.targets[1 + length])) ++length;
    ++first_lengths[length];
  }
  ASSERT_EQ(first_lengths.size(), 3u);
  for (const auto& [length, count] : first_lengths) EXPECT_NEAR(count, kDraws / 3, 5 * std::sqrt(kDraws / 3.0));
}

TEST(SpanCorruption, TextIsNeitherPaddingNorMarks) {
  const SpanCorruption corruption = MakeSpans(128);
  EXPECT_FALSE(corruption.IsText(kPad));
  EXPECT_FALSE(corruption.IsText(kEos));
  EXPECT_FALSE(corruption.IsText(corruption.Sentinel(0)));
  EXPECT_FALSE(corruption.IsText(corruption.Sentinel(99)));
  EXPECT_TRUE(corruption.IsText(kUnknown));
  EXPECT_TRUE(corruption.IsText(kVocabulary - 1));
  const Ids targets{corruption.Sentinel(0), 5, kUnknown, corruption.Sentinel(1), 9, kEos, kPad};
  std::vector<uint8_t> marks(targets.size());
  corruption.MarkText(targets, KeyedRandom(0, 0, 0), marks);
  EXPECT_THAT(marks, ::testing::ElementsAre(0, 1, 1, 0, 1, 0, 0));
}

// A short rest of a document: counts of its own length, rounded as T5 rounds them, then padding.
TEST(SpanCorruption, ShorterTextIsPadded) {
  const SpanCorruption corruption = MakeSpans(64);
  for (const auto& [length, noise, spans] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {2, 1, 1}, {3, 1, 1}, {10, 2, 1}, {30, 4, 1}, {31, 5, 2}, {50, 8, 3}}) {
    const Ids raw = NumberedIds(length);
    for (uint64_t row = 0; row < 20; ++row) {
      const SpanExample e = Corrupted(corruption, raw, KeyedRandom(4, 4, row));
      ASSERT_EQ(Restored(corruption, e.inputs, e.targets), raw);
      EXPECT_EQ(std::ranges::count(e.inputs, kPad), 64 - (length - noise + spans + 1)) << length;
      EXPECT_EQ(std::ranges::count(e.targets, kPad), corruption.lengths().targets - (noise + spans + 1)) << length;
    }
  }
}

// At these settings three tokens would have two hidden ones in two spans, with one token to part them.
TEST(SpanCorruption, ShortTextHasNoMoreSpansThanTokensBetweenThem) {
  const SpanCorruption corruption = MakeSpans(32, 0.5, 1);
  const Ids raw = NumberedIds(3);
  const SpanExample e = Corrupted(corruption, raw, KeyedRandom(4, 4, 0));
  EXPECT_EQ(Restored(corruption, e.inputs, e.targets), raw);
  EXPECT_EQ(std::ranges::count_if(e.targets, IsSentinel), 1);
}

TEST(SpanCorruption, ImpossibleSettingsAreExplained) {
  const auto message = [](int64_t length, double density, double span) {
    return MakeObjective({.input_length = length, .noise_density = density, .mean_span_length = span}, kVocabulary)
        .error()
        .message;
  };
  EXPECT_THAT(message(4096, 0.15, 3.0), ::testing::HasSubstr("sentinels"));
  EXPECT_THAT(message(128, 0.0, 3.0), ::testing::HasSubstr("noise_density"));
  EXPECT_THAT(message(128, 0.15, 0.5), ::testing::HasSubstr("mean_span_length"));
  EXPECT_THAT(message(32, 0.9, 1.0), ::testing::HasSubstr("lower the density"));
}

}  // namespace
}  // namespace allometry::trainer
