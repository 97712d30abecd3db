#include "coordinator/scheduler/retry.h"

#include <gtest/gtest.h>

namespace allometry::scheduler {
namespace {

TEST(Retry, CrashesAreTriedThreeMoreTimesAfterTenTwentyFortySeconds) {
  scheduler::Run run;
  std::vector<int64_t> backoffs;
  NextTry next;
  while ((next = DecideRetry(run, {Outcome::kCrash})).state == RunState::kPending) backoffs.push_back(next.backoff_ms);
  EXPECT_EQ(backoffs, (std::vector<int64_t>{10'000, 20'000, 40'000}));
  EXPECT_EQ(next.state, RunState::kFailed);
}

TEST(Retry, OutOfMemoryHalvesTheMicroBatchThreeTimes) {
  scheduler::Run run;
  std::vector<uint32_t> micro_batches;
  int64_t tried = 48;
  while (DecideRetry(run, {Outcome::kOutOfMemory, false, false, tried}).state == RunState::kPending)
    micro_batches.push_back(static_cast<uint32_t>(tried = run.micro_batch));
  EXPECT_EQ(micro_batches, (std::vector<uint32_t>{24, 12, 6}));
}

// A larger part of the device may hold what the smaller one did not, whatever the micro-batch.
TEST(Retry, OutOfMemoryInAPartOfADeviceIsTriedAgainWithOneSequenceToo) {
  const Ending in_a_part{.outcome = Outcome::kOutOfMemory, .micro_batch = 2, .had_whole_device = false};
  scheduler::Run run;
  for (int i = 0; i < kMaxOutOfMemory; ++i) {
    EXPECT_EQ(DecideRetry(run, in_a_part).state, RunState::kPending);
    EXPECT_EQ(run.micro_batch, 1u);
  }
  EXPECT_EQ(DecideRetry(run, in_a_part).state, RunState::kFailed);
}

TEST(Retry, OutOfMemoryWithOneSequenceFails) {
  scheduler::Run run;
  EXPECT_EQ(DecideRetry(run, {Outcome::kOutOfMemory, false, false, 1}).state, RunState::kFailed);
  scheduler::Run unknown;
  EXPECT_EQ(DecideRetry(unknown, {Outcome::kOutOfMemory}).state, RunState::kFailed);
}

TEST(Retry, MistakesAreNeverTriedAgain) {
  for (Outcome outcome : {Outcome::kConfigError, Outcome::kDataError, Outcome::kLimit}) {
    scheduler::Run run;
    EXPECT_EQ(DecideRetry(run, {outcome}).state, RunState::kFailed);
  }
  scheduler::Run run;
  EXPECT_EQ(DecideRetry(run, {Outcome::kDiverged}).state, RunState::kDiverged);
}

TEST(Retry, PreemptionIsAllowedAHundredTimesAndRequestedStopsAlways) {
  scheduler::Run run;
  for (int i = 0; i < kMaxPreemptions; ++i) ASSERT_EQ(DecideRetry(run, {Outcome::kStopped}).state, RunState::kPending);
  for (int i = 0; i < 300; ++i) ASSERT_EQ(DecideRetry(run, {Outcome::kStopped, true, true}).state, RunState::kPending);
  EXPECT_EQ(DecideRetry(run, {Outcome::kStopped}).state, RunState::kFailed);
}

TEST(Retry, AWorkerLostBeforeAnyStepCountsAsACrash) {
  scheduler::Run poison, healthy;
  for (int i = 0; i < kMaxCrashes; ++i)
    ASSERT_EQ(DecideRetry(poison, {Outcome::kLost, false}).state, RunState::kPending);
  EXPECT_EQ(DecideRetry(poison, {Outcome::kLost, false}).state, RunState::kFailed);
  for (int i = 0; i < 20; ++i) {
    const NextTry next = DecideRetry(healthy, {Outcome::kLost, true});
    ASSERT_EQ(next.state, RunState::kPending);
    ASSERT_EQ(next.backoff_ms, 0);
  }
  EXPECT_EQ(healthy.crashes, 0);
}

}  // namespace
}  // namespace allometry::scheduler
