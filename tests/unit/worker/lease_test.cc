#include "worker/daemon/lease.h"

#include "gtest/gtest.h"

namespace allometry::worker {
namespace {

TEST(LeaseTimings, TheGracePeriodFitsBetweenTerminationAndKill) {
  const LeaseTimings timings = TimingsFor(300'000, 30'000);
  EXPECT_EQ(timings.kill_before_ms, 5'000);
  EXPECT_EQ(timings.terminate_before_ms, 35'000);
}

TEST(LeaseTimings, AShortLeaseIsSharedOutInsteadOfEatenUp) {
  for (int64_t ttl_ms : {100, 1'000, 10'000, 60'000, 300'000}) {
    const LeaseTimings timings = TimingsFor(ttl_ms, 3'600'000);
    EXPECT_GT(timings.kill_before_ms, 0);
    EXPECT_GT(timings.terminate_before_ms, timings.kill_before_ms);
    EXPECT_LE(timings.terminate_before_ms, ttl_ms / 2) << "at least half of the lease is for work";
  }
}

TEST(LeaseClock, NothingRunsBeforeTheFirstAcknowledgement) {
  EXPECT_EQ(LeaseClock().ActionAt(1'000'000, TimingsFor(300'000, 30'000)), LeaseAction::kWait);
}

TEST(LeaseClock, ActsBeforeTheEndCountedFromSending) {
  const LeaseTimings timings = TimingsFor(300'000, 30'000);
  LeaseClock lease;
  lease.Renew(1'000);
  EXPECT_EQ(lease.ActionAt(265'999, timings), LeaseAction::kRun);
  EXPECT_EQ(lease.ActionAt(266'000, timings), LeaseAction::kTerminate);
  EXPECT_EQ(lease.ActionAt(295'999, timings), LeaseAction::kTerminate);
  EXPECT_EQ(lease.ActionAt(296'000, timings), LeaseAction::kKill);
  lease.Renew(20'000);
  EXPECT_EQ(lease.ActionAt(266'000, timings), LeaseAction::kRun);
  lease.Renew(5'000);
  EXPECT_EQ(lease.ActionAt(284'999, timings), LeaseAction::kRun) << "an older message does not shorten it";
}

TEST(SentLedger, AnAcknowledgementCoversAllBeforeIt) {
  SentLedger ledger;
  ledger.Sent(1, 100);
  ledger.Sent(2, 200);
  ledger.Sent(3, 300);
  EXPECT_EQ(ledger.OldestWaiting(), 100);
  EXPECT_EQ(ledger.Acknowledge(2), 200);
  EXPECT_EQ(ledger.waiting(), 1u);
  EXPECT_EQ(ledger.Acknowledge(2), std::nullopt) << "said twice";
  EXPECT_EQ(ledger.Acknowledge(1), std::nullopt) << "said late";
  EXPECT_EQ(ledger.Acknowledge(9), 300);
  EXPECT_EQ(ledger.OldestWaiting(), std::nullopt);
}

}  // namespace
}  // namespace allometry::worker
