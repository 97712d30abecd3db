#include "worker/supervisor/event_tailer.h"

#include <cmath>
#include <fstream>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/worker/scratch.h"

namespace allometry::worker {
namespace {

struct Seen {
  int64_t offset;
  std::string event;
};

class EventTailerTest : public ::testing::Test {
 protected:
  void Append(const std::string& text) { std::ofstream(path_, std::ios::app | std::ios::binary) << text; }
  void Poll() {
    while (tailer_.Poll([&](int64_t offset, const common::Json& event) {
      seen_.push_back({offset, event["event"]});
    })) {
    }
  }
  Scratch scratch_;
  std::filesystem::path path_ = scratch_ / "events.jsonl";
  EventTailer tailer_{path_};
  std::vector<Seen> seen_;
};

TEST_F(EventTailerTest, OffsetsAreByteOffsetsOfLines) {
  Poll();
  EXPECT_TRUE(seen_.empty()) << "a file that is not there yet has no events";
  const std::string first = "{\"event\":\"start\",\"name\":\"\xc3\xa9\"}\n";
  Append(first + "{\"event\":\"progress\"}\n");
  Poll();
  Append("{\"event\":\"result\"}\n");
  Poll();
  ASSERT_EQ(seen_.size(), 3u);
  EXPECT_EQ(seen_[0].offset, 0);
  EXPECT_EQ(seen_[1].offset, static_cast<int64_t>(first.size()));
  EXPECT_EQ(seen_[2].offset, static_cast<int64_t>(first.size()) + 21);
  EXPECT_EQ(seen_[2].event, "result");
}

TEST_F(EventTailerTest, ATornTailWaitsForItsNewline) {
  Append("{\"event\":\"a\"}\n{\"event\":");
  Poll();
  ASSERT_EQ(seen_.size(), 1u);
  Append("\"b\"}");
  Poll();
  EXPECT_EQ(seen_.size(), 1u);
  Append("\n");
  Poll();
  ASSERT_EQ(seen_.size(), 2u);
  EXPECT_EQ(seen_[1].offset, 14);
  EXPECT_EQ(tailer_.dropped_lines(), 0);
}

TEST_F(EventTailerTest, ALineOverOneMebibyteIsDroppedAndReported) {
  const std::string frame = "{\"event\":\"big\",\"x\":\"\"}";
  const auto limit = static_cast<size_t>(EventTailer::kMaxLineBytes);
  auto line_of = [&](size_t bytes) {
    return "{\"event\":\"big\",\"x\":\"" + std::string(bytes - frame.size(), 'x') + "\"}\n";
  };
  Append(line_of(limit) + line_of(limit + 1) + "{\"event\":\"after\"}\n");
  Poll();
  ASSERT_EQ(seen_.size(), 2u);
  EXPECT_EQ(seen_[0].event, "big");
  EXPECT_EQ(seen_[1].event, "after");
  EXPECT_EQ(seen_[1].offset, static_cast<int64_t>(2 * limit + 3));
  EXPECT_EQ(tailer_.dropped_lines(), 1);
  EXPECT_NE(tailer_.dropped_reason().find("1 MiB"), std::string::npos);
}

TEST_F(EventTailerTest, WhatIsNoEventIsDroppedAndTheNextLineCounts) {
  Append("not json\n[1]\n{\"no\":1}\n{\"event\":7}\n\n{\"event\":\"ok\"}\n");
  Poll();
  ASSERT_EQ(seen_.size(), 1u);
  EXPECT_EQ(seen_[0].event, "ok");
  EXPECT_EQ(tailer_.dropped_lines(), 4) << "an empty line is not counted";
}

TEST_F(EventTailerTest, ReadsAFileLargerThanOnePollInParts) {
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += "{\"event\":\"progress\"}\n";
  Append(text);
  tailer_.Poll([&](int64_t offset, const common::Json&) { seen_.push_back({offset, ""}); }, 1000);
  EXPECT_LT(seen_.size(), 50'000u);
  Poll();
  EXPECT_EQ(seen_.size(), 50'000u);
}

TEST(ContractNumbers, NonFiniteValuesAreTexts) {
  EXPECT_TRUE(std::isnan(*NumberOf("nan")));
  EXPECT_EQ(*NumberOf("inf"), INFINITY);
  EXPECT_EQ(*NumberOf("-inf"), -INFINITY);
  EXPECT_EQ(*NumberOf(2.5), 2.5);
  EXPECT_FALSE(NumberOf("2.5").has_value());
  EXPECT_FALSE(NumberOf(nullptr).has_value());
  EXPECT_EQ(IntegerOr({{"step", "nan"}}, "step", 7), 7);
  EXPECT_EQ(IntegerOr({{"step", 12}}, "step", 7), 12);
}

}  // namespace
}  // namespace allometry::worker
