#include <gmock/gmock.h>
#include <malloc.h>

#include <algorithm>

#include "tests/unit/scheduler/scheduler_fixture.h"

namespace allometry::scheduler {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(SchedulerTest, FewestFlopsFirst) {
  const int64_t large = NewRun(300), small = NewRun(100), middle = NewRun(200);
  NewWorker(3);
  EXPECT_THAT(Granted(), ElementsAre(small, middle, large));
}

TEST_F(SchedulerTest, FifoTakesThemInTheirOrder) {
  AddSweepWith({.policy = FindPolicy("fifo")});
  const int64_t first = NewRun(300, {}, 2), second = NewRun(100, {}, 2), third = NewRun(200, {}, 2);
  NewWorker(3);
  EXPECT_THAT(Granted(), ElementsAre(first, second, third));
}

TEST_F(SchedulerTest, UnknownPoliciesAreNotFound) { EXPECT_EQ(FindPolicy("largest_first"), nullptr); }

TEST_F(SchedulerTest, HigherPriorityGoesFirst) {
  AddSweepWith({.priority = 5});
  const int64_t cheap = NewRun(1), urgent = NewRun(1000, {}, 2);
  NewWorker(1);
  EXPECT_THAT(Granted(), ElementsAre(urgent));
  Finish(urgent, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(cheap));
}

TEST_F(SchedulerTest, ConfiguringASweepReordersIt) {
  const int64_t large = NewRun(300), small = NewRun(100);
  Step(state_, ConfigureSweep{1, 0, FindPolicy("fifo"), 0}, now_);
  NewWorker(2);
  EXPECT_THAT(Granted(), ElementsAre(large, small));
}

TEST_F(SchedulerTest, ChildrenWaitForTheirParentsOutputs) {
  const int64_t parent = NewRun(10), child = NewRun(1, {parent});
  NewWorker(2);
  EXPECT_EQ(Waits(child), WaitReason::kParentPending);
  EXPECT_THAT(Granted(), ElementsAre(parent));
  Finish(parent, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(child));
}

TEST_F(SchedulerTest, AFailedParentBlocksAllItsDescendantsAndEndsTheSweep) {
  const int64_t parent = NewRun(10), child = NewRun(1, {parent}), grandchild = NewRun(1, {child});
  NewWorker(1);
  Granted();
  EXPECT_FALSE(state_.sweeps.at(1).finished());
  Finish(parent, Outcome::kConfigError);
  EXPECT_EQ(Waits(child), WaitReason::kBlocked);
  EXPECT_EQ(Waits(grandchild), WaitReason::kBlocked);
  EXPECT_TRUE(state_.sweeps.at(1).finished());
  Step(state_, RetryRuns{{parent}}, now_);
  EXPECT_EQ(Waits(child), WaitReason::kParentPending);
  EXPECT_EQ(state_.sweeps.at(1).counts.blocked, 0);
  EXPECT_THAT(Granted(), ElementsAre(parent));
}

TEST_F(SchedulerTest, AParentWithoutKeptOutputsBlocksUntilItRunsAgain) {
  const int64_t parent = NewRun(10);
  NewWorker(1);
  Granted();
  Finish(parent, Outcome::kDone, 100, false);
  const int64_t child = NewRun(1, {parent});
  EXPECT_EQ(Waits(child), WaitReason::kBlocked);
  EXPECT_THAT(Granted(), IsEmpty());
  Step(state_, RetryRuns{{parent}}, now_);
  EXPECT_THAT(Granted(), ElementsAre(parent));
}

TEST_F(SchedulerTest, ResultsAreTakenOnceAndOnlyWithTheCurrentGeneration) {
  const int64_t run = NewRun(10);
  NewWorker(1);
  Granted();
  const Lease lease = LeaseOf(run);
  EXPECT_FALSE(
      Step(state_, AttemptFinished{run, lease.attempt_id, lease.generation + 1, Outcome::kDone}, now_).accepted);
  EXPECT_TRUE(Step(state_, AttemptFinished{run, lease.attempt_id, lease.generation, Outcome::kDone}, now_).accepted);
  EXPECT_FALSE(Step(state_, AttemptFinished{run, lease.attempt_id, lease.generation, Outcome::kDone}, now_).accepted);
}

TEST_F(SchedulerTest, SilenceWithinTheLeaseChangesNothingAndBeyondItEndsIt) {
  const int64_t run = NewRun(10);
  NewWorker(1);
  Granted();
  now_ += state_.lease_ttl_ms - 1;
  EXPECT_THAT(Step(state_, Tick{}, now_).closed, IsEmpty());
  now_ += 1;
  const Actions actions = Step(state_, Tick{}, now_);
  ASSERT_EQ(actions.closed.size(), 1u);
  EXPECT_EQ(actions.closed[0].outcome, Outcome::kLost);
  EXPECT_EQ(StateOf(run), RunState::kPending);
  EXPECT_EQ(Waits(run), WaitReason::kBackoff);  // no step: it counts as a crash
}

TEST_F(SchedulerTest, ASyncRenewsForAFullTerm) {
  const int64_t run = NewRun(10);
  NewWorker(1);
  Granted();
  now_ += state_.lease_ttl_ms - 1;
  Report(run, 1);
  now_ += state_.lease_ttl_ms - 1;
  EXPECT_THAT(Step(state_, Tick{}, now_).closed, IsEmpty());
}

TEST_F(SchedulerTest, WhatAWorkerHasHeardOfAndNoLongerHoldsIsLost) {
  const int64_t run = NewRun(10);
  const int64_t worker = NewWorker(1);
  Granted();
  state_.leases.at(LeaseOf(run).attempt_id).placements[0].ordered_in = 7;
  EXPECT_THAT(Step(state_, WorkerSynced{worker, 6}, now_).closed, IsEmpty());
  EXPECT_EQ(Step(state_, WorkerSynced{worker, 7}, now_).closed.size(), 1u);
}

TEST_F(SchedulerTest, BackoffEndsAtItsTime) {
  const int64_t run = NewRun(10);
  NewWorker(1);
  Granted();
  Finish(run, Outcome::kCrash);
  EXPECT_EQ(NextWakeMs(state_), now_ + 10'000);
  now_ += 9'999;
  Step(state_, Tick{}, now_);
  EXPECT_THAT(Granted(), IsEmpty());
  now_ += 1;
  Step(state_, Tick{}, now_);
  EXPECT_THAT(Granted(), ElementsAre(run));
}

TEST_F(SchedulerTest, BudgetsChargeExecutedStepsAndReserveTheRest) {
  Step(state_, ConfigureSweep{1, 0, FindPolicy(""), 1500}, now_);
  const int64_t first = NewRun(1000), second = NewRun(1001);
  NewWorker(2);
  EXPECT_THAT(Granted(), ElementsAre(first));
  EXPECT_EQ(Waits(second), WaitReason::kOverBudget);
  Report(first, 40);
  EXPECT_DOUBLE_EQ(state_.sweeps.at(1).spent_flops, 400);
  EXPECT_DOUBLE_EQ(ReservedFlops(state_, 1), 600);
  // The lost attempt stays charged; the next one goes on from its checkpoint.
  const Lease lease = LeaseOf(first);
  Step(state_, CheckpointReported{first, lease.attempt_id, lease.generation, 30}, now_);
  Step(state_, WorkerGone{lease.worker_id()}, now_);
  EXPECT_DOUBLE_EQ(state_.sweeps.at(1).spent_flops, 400);
  EXPECT_DOUBLE_EQ(RestFlops(*state_.FindRun(first)), 700);
  NewWorker(1);
  EXPECT_THAT(Granted(), ElementsAre(first));
  Report(first, 50, 30);
  Finish(first, Outcome::kDone, 100);
  EXPECT_DOUBLE_EQ(state_.sweeps.at(1).spent_flops, 400 + 700);
}

TEST_F(SchedulerTest, AnAttemptThatEndsBeforeItsFirstReportIsChargedFromWhereItStarted) {
  const int64_t run = NewRun(1000);
  NewWorker(1);
  EXPECT_THAT(Granted(), ElementsAre(run));
  const Lease lease = LeaseOf(run);
  AttemptFinished finished{run, lease.attempt_id, lease.generation, Outcome::kDone};
  finished.resumed_step = 30;  // from a checkpoint in the worker's folder that the coordinator never heard of
  const Actions actions = Step(state_, finished, now_);
  ASSERT_EQ(actions.closed.size(), 1u);
  EXPECT_EQ(actions.closed[0].lease.first_step, 30);
  EXPECT_EQ(actions.closed[0].lease.last_step, 100);
  EXPECT_DOUBLE_EQ(state_.sweeps.at(1).spent_flops, 700);
}

TEST_F(SchedulerTest, AnExpensiveRunDoesNotHoldUpACheapOneBehindIt) {
  AddSweepWith({.policy = FindPolicy("fifo"), .budget_flops = 500});
  NewRun(1000, {}, 2);
  const int64_t cheap = NewRun(100, {}, 2);
  NewWorker(2);
  EXPECT_THAT(Granted(), ElementsAre(cheap));
}

TEST_F(SchedulerTest, WorkersNeedTheTrainerTheMemoryAndASlot) {
  const int64_t run = NewRun(10);
  state_.FindRun(run)->memory_bytes = 100;
  EXPECT_EQ(Waits(run), WaitReason::kNoFittingWorker);
  NewWorker(1, 99);
  EXPECT_EQ(Waits(run), WaitReason::kNoFittingWorker);
  EXPECT_THAT(Granted(), IsEmpty());
  NewWorker(1, 100);
  EXPECT_EQ(Waits(run), WaitReason::kReady);
  EXPECT_THAT(Granted(), ElementsAre(run));
}

TEST_F(SchedulerTest, LiveLeasesHoldTheirMemory) {
  const int64_t a = NewRun(10), b = NewRun(20);
  state_.FindRun(a)->memory_bytes = state_.FindRun(b)->memory_bytes = 60;
  NewWorker(2, 100);
  EXPECT_THAT(Granted(), ElementsAre(a));
  Finish(a, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(b));
}

TEST_F(SchedulerTest, ARunGoesBackToTheWorkerThatHadIt) {
  const int64_t run = NewRun(10);
  NewWorker(1);
  const int64_t second = NewWorker(5);
  Granted();
  EXPECT_EQ(LeaseOf(run).worker_id(), second);  // most free slots
  NewWorker(9);
  Finish(run, Outcome::kStopped);
  Granted();
  EXPECT_EQ(LeaseOf(run).worker_id(), second);
}

TEST_F(SchedulerTest, PausingStopsLeasesAndKillsOnlyWhenAsked) {
  const int64_t running = NewRun(10), waiting = NewRun(20);
  NewWorker(1);
  Granted();
  Step(state_, ChangeSweep{1, SweepState::kPaused}, now_);
  EXPECT_FALSE(LeaseOf(running).stop);
  EXPECT_EQ(Waits(waiting), WaitReason::kPaused);
  Step(state_, ChangeSweep{1, SweepState::kPaused, true}, now_);
  EXPECT_TRUE(LeaseOf(running).stop);
  Finish(running, Outcome::kStopped, 5);
  EXPECT_EQ(state_.FindRun(running)->preemptions, 0);
  EXPECT_THAT(Granted(), IsEmpty());
  Step(state_, ChangeSweep{1, SweepState::kActive}, now_);
  EXPECT_THAT(Granted(), ElementsAre(running));
}

TEST_F(SchedulerTest, TheFirstOfFinishAndCancelWins) {
  const int64_t run = NewRun(10);
  NewWorker(1);
  Granted();
  Step(state_, ChangeSweep{1, SweepState::kCancelled}, now_);
  EXPECT_TRUE(LeaseOf(run).stop);
  const Actions late = Finish(run, Outcome::kDone);
  EXPECT_FALSE(late.accepted);
  EXPECT_TRUE(late.cancelled);
  EXPECT_EQ(StateOf(run), RunState::kPending);
  EXPECT_EQ(Waits(run), WaitReason::kCancelled);
  EXPECT_THAT(Granted(), IsEmpty());
}

TEST_F(SchedulerTest, AReviveBeforeTheEndTakesTheResult) {
  const int64_t run = NewRun(10);
  NewWorker(1);
  Granted();
  Step(state_, ChangeSweep{1, SweepState::kCancelled}, now_);
  Step(state_, ChangeSweep{1, SweepState::kActive}, now_);
  EXPECT_TRUE(Finish(run, Outcome::kDone).accepted);
}

TEST_F(SchedulerTest, ARunStopsOnlyWhenNoLiveSweepWantsIt) {
  AddSweepWith({});
  const int64_t run = NewRun(10);
  Step(state_, AttachCells{2, {run}}, now_);
  NewWorker(1);
  Granted();
  Step(state_, ChangeSweep{1, SweepState::kCancelled}, now_);
  EXPECT_FALSE(LeaseOf(run).stop);
  Step(state_, DetachCells{2, {run}}, now_);
  EXPECT_TRUE(LeaseOf(run).stop);
}

TEST_F(SchedulerTest, DrainingWorkersGetNothingNew) {
  const int64_t run = NewRun(10);
  const int64_t worker = NewWorker(2);
  Granted();
  const int64_t next = NewRun(10);
  Step(state_, DrainWorker{worker}, now_);
  EXPECT_THAT(Granted(), IsEmpty());
  EXPECT_EQ(Waits(next), WaitReason::kNoFittingWorker);
  EXPECT_FALSE(LeaseOf(run).stop);
  Step(state_, DrainWorker{worker, true}, now_);
  EXPECT_TRUE(LeaseOf(run).stop);
}

TEST_F(SchedulerTest, RebuildingGivesTheSameCountsAndQueues) {
  const int64_t parent = NewRun(10), failed = NewRun(5), child = NewRun(1, {parent}), blocked = NewRun(1, {failed});
  const int64_t crashed = NewRun(7);
  NewWorker(3);
  Granted();
  Finish(parent, Outcome::kDone);
  Finish(failed, Outcome::kDataError);
  Finish(crashed, Outcome::kCrash);
  const Counts before = state_.sweeps.at(1).counts;
  Rebuild(state_, now_);
  const Counts& after = state_.sweeps.at(1).counts;
  EXPECT_EQ(after.pending, before.pending);
  EXPECT_EQ(after.blocked, 1);
  EXPECT_EQ(after.cells(), 5);
  EXPECT_EQ(Waits(blocked), WaitReason::kBlocked);
  EXPECT_EQ(Waits(crashed), WaitReason::kBackoff);
  EXPECT_THAT(Granted(), ElementsAre(child));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_F(SchedulerTest, APendingRunTakesAtMostFiveHundredBytes) {
  constexpr int kPairs = 50'000;
  const size_t before = mallinfo2().uordblks;
  for (int i = 0; i < kPairs; ++i) {
    const int64_t parent = NewRun(i);
    NewRun(i, {parent});
  }
  const size_t used = mallinfo2().uordblks - before;
  EXPECT_GT(used, 2u * kPairs * sizeof(scheduler::Run));
  EXPECT_LE(used / (2 * kPairs), 500u);
}
#endif

}  // namespace
}  // namespace allometry::scheduler
