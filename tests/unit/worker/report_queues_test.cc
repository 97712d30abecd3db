#include "worker/daemon/report_queues.h"

#include <cmath>
#include <fstream>
#include <set>

#include "gtest/gtest.h"
#include "tests/unit/worker/scratch.h"

namespace allometry::worker {
namespace {

using Chunks = google::protobuf::RepeatedPtrField<v1::MetricChunk>;
using Parts = google::protobuf::RepeatedPtrField<v1::LogPart>;

TEST(MetricQueue, GroupsPointsBySeriesWithUniqueSequences) {
  MetricQueue queue(7);
  queue.Add(100, 1, {{"loss", 2.0}, {"norm", "inf"}, {"text", "no number"}});
  queue.Add(150, 2, {{"loss", 1.0}});
  Chunks chunks;
  EXPECT_EQ(queue.Collect(1, 100, &chunks), 3u);
  ASSERT_EQ(chunks.size(), 2);
  EXPECT_EQ(chunks[0].series(), "loss");
  EXPECT_EQ(chunks[0].attempt_id(), 7);
  EXPECT_EQ(chunks[0].sequence(), 100);
  EXPECT_EQ(chunks[0].steps_size(), 2);
  EXPECT_EQ(chunks[1].sequence(), 101);
  EXPECT_EQ(chunks[1].values(0), INFINITY);
}

TEST(MetricQueue, ResendsTheSameChunksUntilAcknowledged) {
  MetricQueue queue(7);
  queue.Add(0, 1, {{"loss", 2.0}});
  Chunks first, second, third;
  queue.Collect(1, 100, &first);
  queue.Add(50, 2, {{"loss", 1.0}});
  EXPECT_TRUE(queue.pending());
  queue.Collect(2, 100, &second);
  ASSERT_EQ(second.size(), 1);
  EXPECT_EQ(second[0].sequence(), 50) << "a chunk that was sent does not grow any more";
  queue.Acknowledge(1);
  queue.Rewind();
  queue.Collect(3, 100, &third);
  ASSERT_EQ(third.size(), 1);
  EXPECT_EQ(third[0].SerializeAsString(), second[0].SerializeAsString());
  queue.Acknowledge(3);
  EXPECT_EQ(queue.points(), 0u);
  queue.Add(99, 3, {{"loss", 0.5}});
  EXPECT_TRUE(queue.pending());
}

TEST(MetricQueue, AMessageIsBoundedAndNothingIsLostOrDoubled) {
  MetricQueue queue(7);
  for (int64_t step = 0; step < 5000; ++step) queue.Add(step * 100, step, {{"a", step}, {"b", step}});
  std::set<std::pair<std::string, int64_t>> seen;
  std::set<int64_t> sequences;
  for (uint64_t number = 1; queue.points() > 0; ++number) {
    ASSERT_LT(number, 100u);
    Chunks chunks;
    EXPECT_LE(queue.Collect(number, 1024, &chunks), 1024u);
    for (const auto& chunk : chunks) {
      EXPECT_TRUE(sequences.insert(chunk.sequence()).second);
      for (int64_t step : chunk.steps()) EXPECT_TRUE(seen.insert({chunk.series(), step}).second);
    }
    queue.Acknowledge(number);
  }
  EXPECT_EQ(seen.size(), 10'000u);
}

TEST(LogQueue, SendsAFileInOrderAsItGrows) {
  Scratch scratch;
  const auto path = scratch / "log";
  LogQueue queue(7, "stdout", path);
  Parts parts;
  EXPECT_EQ(queue.Collect(1, 100, &parts), 0u) << "no file yet";
  std::ofstream(path) << "0123456789";
  EXPECT_EQ(queue.Collect(2, 4, &parts), 4u);
  EXPECT_EQ(queue.Collect(3, 4, &parts), 0u) << "one part at a time";
  queue.Acknowledge(1);
  EXPECT_EQ(queue.unacknowledged_bytes(), 10);
  queue.Rewind();
  EXPECT_EQ(queue.Collect(4, 100, &parts), 10u) << "again from what is acknowledged";
  queue.Acknowledge(4);
  std::ofstream(path, std::ios::app) << "ab";
  EXPECT_EQ(queue.Collect(5, 100, &parts), 2u);
  EXPECT_EQ(parts[parts.size() - 1].offset(), 10);
  EXPECT_EQ(parts[parts.size() - 1].data(), "ab");
}

}  // namespace
}  // namespace allometry::worker
