#include "coordinator/rpc/strand.h"

#include <gtest/gtest.h>

#include <future>
#include <numeric>

namespace allometry::coordinator {
namespace {

// Holds the strand inside one event until released, so that a test decides what queues up behind it.
class Gate {
 public:
  explicit Gate(Strand* strand) {
    std::promise<void> entered;
    strand->Post([this, &entered] {
      entered.set_value();
      open_.get_future().wait();
    });
    entered.get_future().wait();
  }
  void Open() { open_.set_value(); }

 private:
  std::promise<void> open_;
};

TEST(StrandTest, CommitsTogetherWhatQueuedTogether) {
  std::vector<int> events_per_commit;
  int events = 0;
  Strand strand({.commit = [&] { events_per_commit.push_back(std::exchange(events, 0)); }});
  Gate gate(&strand);
  for (int i = 0; i < 100; ++i) strand.Post([&] { ++events; });
  gate.Open();
  strand.Stop();
  EXPECT_EQ(events_per_commit, (std::vector<int>{0, 100}));  // the gate's own batch first
}

TEST(StrandTest, KeepsTheOrderAndSplitsLargeBatches) {
  std::vector<int> order;
  int commits = 0;
  Strand strand({.max_batch_events = 10, .commit = [&] { ++commits; }});
  Gate gate(&strand);
  for (int i = 0; i < 95; ++i) strand.Post([&order, i] { order.push_back(i); });
  gate.Open();
  strand.Stop();
  std::vector<int> expected(95);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
  EXPECT_EQ(commits, 1 + 10);
}

TEST(StrandTest, RunsEventsOfManyThreadsOneAtATime) {
  int64_t unguarded = 0;
  Strand strand({});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) ASSERT_TRUE(strand.Post([&] { ++unguarded; }));
    });
  }
  for (auto& thread : threads) thread.join();
  strand.Stop();
  EXPECT_EQ(unguarded, 20000);
}

TEST(StrandTest, StopRunsWhatIsQueuedAndRefusesTheRest) {
  int ran = 0;
  Strand strand({});
  Gate gate(&strand);
  for (int i = 0; i < 3; ++i) strand.Post([&] { ++ran; });
  gate.Open();
  strand.Stop();
  EXPECT_EQ(ran, 3);
  EXPECT_FALSE(strand.Post([&] { ++ran; }));
  EXPECT_EQ(ran, 3);
}

TEST(StrandTest, TicksAreEventsOfTheirOwn) {
  std::promise<void> third;
  int ticks = 0, commits = 0;
  {
    Strand strand({.tick_interval = std::chrono::milliseconds(1),
                   .tick =
                       [&] {
                         if (++ticks == 3) third.set_value();
                       },
                   .commit = [&] { ++commits; }});
    third.get_future().wait();
  }
  EXPECT_GE(commits, 3);
}

}  // namespace
}  // namespace allometry::coordinator
