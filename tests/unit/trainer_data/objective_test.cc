#include "worker/trainer/data/objective.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <numeric>

#include "tests/unit/trainer_data/token_fixture.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kPieces = 32'000;

struct Example {
  Ids inputs, targets;
};

std::shared_ptr<const Objective> Make(const arch::ObjectiveSettings& settings) {
  return *MakeObjective(settings, kPieces);
}

Example Applied(const Objective& objective, const Ids& raw, KeyedRandom random) {
  Example e{Ids(static_cast<size_t>(objective.lengths().inputs), -1),
            Ids(static_cast<size_t>(objective.lengths().targets), -1)};
  objective.Apply(raw, random, e.inputs, e.targets);
  return e;
}

Ids Numbered(int64_t n) {
  Ids raw(static_cast<size_t>(n));
  std::iota(raw.begin(), raw.end(), kFirstPiece);
  return raw;
}

std::vector<uint8_t> Marks(const Objective& objective, const Ids& targets, KeyedRandom random) {
  std::vector<uint8_t> marks(targets.size(), 7);
  objective.MarkText(targets, random, marks);
  return marks;
}

TEST(Objective, ImpossibleSettingsAreExplained) {
  const auto message = [](const arch::ObjectiveSettings& settings) {
    return MakeObjective(settings, kPieces).error().message;
  };
  EXPECT_THAT(message({.name = "causal"}), HasSubstr("span_corruption prefix_lm bert"));
  EXPECT_THAT(message({.name = "prefix_lm", .input_length = 3}), HasSubstr("input_length is 3"));
  EXPECT_THAT(message({.name = "prefix_lm", .input_length = 8, .target_length = 9}), HasSubstr("target_length is 9"));
  EXPECT_THAT(message({.name = "bert", .noise_density = 1}), HasSubstr("noise_density is 1"));
}

TEST(Objective, RefusesTextOfAWrongLength) {
  for (const char* name : {"span_corruption", "prefix_lm", "bert"}) {
    const auto objective = Make({.name = name, .input_length = 16});
    EXPECT_THROW(Applied(*objective, Numbered(1), KeyedRandom(0, 0, 0)), std::invalid_argument) << name;
    EXPECT_THROW(Applied(*objective, Numbered(objective->lengths().raw + 1), KeyedRandom(0, 0, 0)),
                 std::invalid_argument)
        << name;
  }
}

TEST(PrefixLm, TwoTokensCanBeSplitInOneWay) {
  const auto objective = Make({.name = "prefix_lm", .input_length = 5});
  const Example e = Applied(*objective, {10, 20}, KeyedRandom(3, 1, 4));
  EXPECT_THAT(e.inputs, ElementsAre(10, kEos, kPad, kPad, kPad));
  EXPECT_THAT(e.targets, ElementsAre(20, kEos, kPad, kPad, kPad));
  EXPECT_THAT(Marks(*objective, e.targets, KeyedRandom(3, 1, 4)), ElementsAre(1, 0, 0, 0, 0));
}

TEST(PrefixLm, EveryTokenIsOnOneSideOnce) {
  for (const int64_t target_length : {2, 9, 32}) {
    const auto objective = Make({.name = "prefix_lm", .input_length = 32, .target_length = target_length});
    EXPECT_EQ(objective->lengths().raw, 31);
    EXPECT_EQ(objective->lengths().targets, target_length);
    for (int64_t length = 2; length <= 31; ++length)
      for (uint64_t row = 0; row < 20; ++row) {
        const Ids raw = Numbered(length);
        const Example e = Applied(*objective, raw, KeyedRandom(1, 0, row));
        ASSERT_EQ(Restored(*objective, e.inputs, e.targets), raw) << length;
        ASSERT_EQ(e.inputs.front(), raw.front()) << "an input is never empty";
        ASSERT_EQ(e.targets.front() == kEos, false) << "nor is a target";
      }
  }
}

// T5 draws the number of input tokens from 1 to length - 1, each equally likely. With short targets, from those that
// leave a target that fits.
TEST(PrefixLm, EverySplitIsEquallyLikely) {
  constexpr int kDraws = 22'000;
  for (const auto& [target_length, splits] : std::vector<std::pair<int64_t, int>>{{0, 11}, {12, 11}, {5, 4}}) {
    const auto objective = Make({.name = "prefix_lm", .input_length = 13, .target_length = target_length});
    const Ids raw = Numbered(12);
    std::map<int64_t, int> prefixes;
    for (uint64_t row = 0; row < kDraws; ++row) {
      const Ids inputs = Applied(*objective, raw, KeyedRandom(9, 2, row)).inputs;
      ++prefixes[std::ranges::find(inputs, kEos) - inputs.begin()];
    }
    ASSERT_EQ(static_cast<int>(prefixes.size()), splits);
    EXPECT_EQ(prefixes.begin()->first, 12 - splits);
    EXPECT_EQ(prefixes.rbegin()->first, 11);
    const double expected = static_cast<double>(kDraws) / splits;
    for (const auto& [prefix, count] : prefixes) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected)) << prefix;
  }
}

TEST(Bert, TargetsAreTheTextAndInputsDifferWhereItIsHidden) {
  const auto objective = Make({.name = "bert", .input_length = 101});
  const Ids raw = Numbered(100);
  for (uint64_t row = 0; row < 200; ++row) {
    const KeyedRandom random(5, 1, row);
    const Example e = Applied(*objective, raw, random);
    Ids whole = raw;
    whole.push_back(kEos);
    ASSERT_EQ(e.targets, whole);
    ASSERT_EQ(e.inputs.back(), kEos);
    const std::vector<uint8_t> marks = Marks(*objective, e.targets, random);
    EXPECT_EQ(std::accumulate(marks.begin(), marks.end(), 0), 15) << "15 % of 100 tokens, exactly";
    for (size_t i = 0; i < raw.size(); ++i)
      if (!marks[i]) {
        ASSERT_EQ(e.inputs[i], raw[i]) << "what is not chosen is shown";
      }
  }
}

TEST(Bert, ShortTextIsPaddedAndMarksAreNotEndMarks) {
  const auto objective = Make({.name = "bert", .input_length = 12, .noise_density = 0.9});
  const Ids raw{5, kEos, 7};
  for (uint64_t row = 0; row < 50; ++row) {
    const KeyedRandom random(2, 2, row);
    const Example e = Applied(*objective, raw, random);
    EXPECT_EQ(e.targets, (Ids{5, kEos, 7, kEos, 0, 0, 0, 0, 0, 0, 0, 0}));
    EXPECT_TRUE(std::all_of(e.inputs.begin() + 4, e.inputs.end(), [](int32_t id) { return id == kPad; }));
    const std::vector<uint8_t> marks = Marks(*objective, e.targets, random);
    EXPECT_EQ(marks[1], 0) << "an end mark inside is no text, chosen or not";
    EXPECT_EQ(std::accumulate(marks.begin() + 3, marks.end(), 0), 0);
    EXPECT_GE(marks[0] + marks[2], 1) << "two of three are chosen";
  }
}

// Of the chosen tokens 80 % read the mask, 10 % another piece, 10 % themselves; every place is equally likely.
TEST(Bert, SharesAndPlaces) {
  const auto objective = Make({.name = "bert", .input_length = 41});
  const Ids raw = Numbered(40);
  constexpr int kDraws = 20'000;
  std::map<std::string, int> kinds;
  std::vector<int> places(40);
  double random_pieces = 0;
  for (uint64_t row = 0; row < kDraws; ++row) {
    const KeyedRandom random(8, 3, row);
    const Example e = Applied(*objective, raw, random);
    const std::vector<uint8_t> marks = Marks(*objective, e.targets, random);
    for (size_t i = 0; i < raw.size(); ++i) {
      if (!marks[i]) continue;
      ++places[i];
      const int32_t id = e.inputs[i];
      ++kinds[id == 32'099 ? "mask" : id == raw[i] ? "same" : "random"];
      if (id == 32'099 || id == raw[i]) continue;
      ASSERT_GE(id, kFirstPiece);
      ASSERT_LT(id, kPieces);
      random_pieces += id;
    }
  }
  const double chosen = 6.0 * kDraws;
  const auto near = [&](const char* kind, double share) {
    EXPECT_NEAR(kinds[kind], share * chosen, 5 * std::sqrt(chosen * share * (1 - share))) << kind;
  };
  near("mask", 0.8);
  near("random", 0.1);
  near("same", 0.1);
  EXPECT_NEAR(random_pieces / kinds["random"], kPieces / 2.0, 5 * kPieces / std::sqrt(12.0 * kinds["random"]));
  for (int count : places) EXPECT_NEAR(count, chosen / 40, 5 * std::sqrt(chosen / 40));
}

}  // namespace
}  // namespace allometry::trainer
