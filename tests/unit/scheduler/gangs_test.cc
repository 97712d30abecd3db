#include "coordinator/scheduler/gangs.h"

#include <gmock/gmock.h>

#include "tests/unit/scheduler/scheduler_fixture.h"

// Attempts of several ranks: where they are placed, who waits for whom, how they end.
namespace allometry::scheduler {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class GangsTest : public SchedulerTest {
 protected:
  // What closed the only attempt that an event closed.
  static ClosedAttempt OnlyClosed(const Actions& actions) {
    EXPECT_EQ(actions.closed.size(), 1u);
    return actions.closed.empty() ? ClosedAttempt{} : actions.closed.front();
  }
};

TEST_F(GangsTest, TakesOneWorkerWhereOneIsEnough) {
  NewWorker(1);
  const int64_t large = NewWorker(8), fitting = NewWorker(4);
  const int64_t gang = NewGang(10, 4);
  EXPECT_THAT(Granted(), ElementsAre(gang));
  EXPECT_THAT(PlacesOf(gang), ElementsAre(fitting, fitting, fitting, fitting)) << "the large room stays whole";
  EXPECT_EQ(BusySlots(state_, fitting), 4);
  EXPECT_EQ(BusySlots(state_, large), 0);
}

TEST_F(GangsTest, SpreadsOverTheFewestWorkers) {
  const int64_t one = NewWorker(1), two = NewWorker(2), three = NewWorker(3);
  const int64_t gang = NewGang(10, 5);
  EXPECT_THAT(Granted(), ElementsAre(gang));
  EXPECT_THAT(PlacesOf(gang), ElementsAre(three, three, three, two, two));
  EXPECT_EQ(BusySlots(state_, one), 0);
}

TEST_F(GangsTest, RankZeroGoesWhereTheCheckpointMayBe) {
  NewWorker(2);
  const int64_t second = NewWorker(3);
  const int64_t gang = NewGang(10, 4);
  state_.FindRun(gang)->last_worker = 1;
  Granted();
  EXPECT_THAT(PlacesOf(gang), ElementsAre(1, second, second, second));
}

TEST_F(GangsTest, KindsOfDevicesAreNotMixed) {
  NewWorker(2, 0, "NVIDIA H100");
  NewWorker(2, 0, "NVIDIA A100");
  NewWorker(8, 0, "");  // several kinds in one machine: nobody could say which of them a rank gets
  const int64_t gang = NewGang(10, 4);
  EXPECT_THAT(Granted(), IsEmpty());
  EXPECT_EQ(Waits(gang), WaitReason::kNoFittingWorker);
  const int64_t more = NewWorker(2, 0, "NVIDIA A100");
  EXPECT_THAT(Granted(), ElementsAre(gang));
  EXPECT_THAT(PlacesOf(gang), ElementsAre(2, 2, more, more));
}

TEST_F(GangsTest, AllOrNothing) {
  const int64_t worker = NewWorker(2);
  const int64_t gang = NewGang(10, 3);
  EXPECT_THAT(Granted(), IsEmpty());
  EXPECT_EQ(BusySlots(state_, worker), 0);
  EXPECT_EQ(Waits(gang), WaitReason::kNoFittingWorker);
  NewWorker(1);
  EXPECT_THAT(Granted(), ElementsAre(gang));
}

// Had each taken what is free, both would wait for the other.
TEST_F(GangsTest, TwoWaitingGangsDoNotBlockOneAnother) {
  NewWorker(2);
  NewWorker(2);
  const int64_t first = NewGang(10, 3), second = NewGang(20, 3);
  EXPECT_THAT(Granted(), ElementsAre(first));
  EXPECT_EQ(Waits(second), WaitReason::kReady);
  Finish(first, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(second));
}

TEST_F(GangsTest, FreeSlotsAreKeptForTheFirstThatWaits) {
  NewWorker(2);
  const int64_t small = NewRun(1), other = NewRun(1);
  EXPECT_THAT(Granted(), ElementsAre(small, other));
  const int64_t gang = NewGang(10, 2);
  std::vector<int64_t> behind;
  for (int i = 0; i < 3; ++i) behind.push_back(NewRun(100));
  Finish(small, Outcome::kDone);
  EXPECT_THAT(Granted(), IsEmpty()) << "the free slot is the gang's";
  Finish(other, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(gang));
  Finish(gang, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(behind[0], behind[1]));
}

TEST_F(GangsTest, OtherKindsOfDevicesGoOnMeanwhile) {
  NewWorker(2, 0, "NVIDIA H100");
  const int64_t first = NewRun(1);
  EXPECT_THAT(Granted(), ElementsAre(first));
  const int64_t gang = NewGang(10, 2), small = NewRun(100);
  EXPECT_THAT(Granted(), IsEmpty());
  const int64_t cpu = NewWorker(1);
  EXPECT_THAT(Granted(), ElementsAre(small));
  EXPECT_THAT(PlacesOf(small), ElementsAre(cpu));
  Finish(first, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(gang));
}

TEST_F(GangsTest, AGangThatNeverFitsHoldsUpNobody) {
  NewWorker(2);
  const int64_t gang = NewGang(10, 4), small = NewRun(100);
  EXPECT_THAT(Granted(), ElementsAre(small));
  EXPECT_EQ(Waits(gang), WaitReason::kNoFittingWorker);
}

TEST_F(GangsTest, RanksShareTheMemoryButForTheWeights) {
  const int64_t run = NewGang(10, 4, 1000, 200);
  EXPECT_EQ(MemoryOfRank(*state_.FindRun(run), 1), 1000);
  EXPECT_EQ(MemoryOfRank(*state_.FindRun(run), 4), 200 + 800 / 4);
  NewWorker(4, 1599);  // three of them
  EXPECT_THAT(Granted(), IsEmpty());
  NewWorker(1, 400);
  EXPECT_THAT(Granted(), ElementsAre(run));
  EXPECT_THAT(PlacesOf(run), ElementsAre(1, 1, 1, 2));
}

TEST_F(GangsTest, AutoTakesTheFewestThatFit) {
  for (int i = 0; i < 4; ++i) NewWorker(1, 500);
  const int64_t small = NewGang(1, 0, 400, 200);
  EXPECT_THAT(Granted(), ElementsAre(small));
  EXPECT_EQ(PlacesOf(small).size(), 1u);
  Finish(small, Outcome::kDone);
  const int64_t large = NewGang(1, 0, 1000, 200);
  EXPECT_THAT(Granted(), ElementsAre(large));
  EXPECT_EQ(PlacesOf(large).size(), 4u) << "two would need 600 each";
  Finish(large, Outcome::kDone);
  const int64_t unknown = NewGang(1, 0);
  EXPECT_THAT(Granted(), ElementsAre(unknown));
  EXPECT_EQ(PlacesOf(unknown).size(), 1u);
}

TEST_F(GangsTest, AutoEndsAtTheSequencesOfABatch) {
  for (int i = 0; i < 4; ++i) NewWorker(1, 500);
  const int64_t run = NewGang(1, 0, 1000, 200);
  Step(state_, SetDevices{run, 0, 3, 200}, now_);
  EXPECT_THAT(Granted(), IsEmpty());
  EXPECT_EQ(Waits(run), WaitReason::kNoFittingWorker);
}

TEST_F(GangsTest, EveryRankMustBeHeardOf) {
  const int64_t first = NewWorker(1), second = NewWorker(1);
  const int64_t gang = NewGang(10, 2);
  Granted();
  now_ += state_.lease_ttl_ms - 1;
  SyncAll(first);
  EXPECT_THAT(Step(state_, Tick{}, now_).closed, IsEmpty());
  now_ += 1;
  const ClosedAttempt closed = OnlyClosed(Step(state_, Tick{}, now_));
  EXPECT_EQ(closed.outcome, Outcome::kLost);
  EXPECT_EQ(closed.rank, 1);
  EXPECT_EQ(closed.lease.placements[1].worker_id, second);
  EXPECT_EQ(StateOf(gang), RunState::kPending);
  EXPECT_EQ(BusySlots(state_, first), 0);
}

TEST_F(GangsTest, ALostRankEndsTheAttemptEverywhere) {
  const int64_t first = NewWorker(1), second = NewWorker(1);
  const int64_t gang = NewGang(10, 2);
  Granted();
  const Actions actions = Step(state_, WorkerGone{second}, now_);
  EXPECT_EQ(OnlyClosed(actions).rank, 1);
  EXPECT_TRUE(actions.workers.contains(first)) << "it is told";
  EXPECT_EQ(StateOf(gang), RunState::kPending);
}

TEST_F(GangsTest, ARankThatIsNoLongerHeldEndsIt) {
  NewWorker(2);
  const int64_t gang = NewGang(10, 2);
  Granted();
  for (Placement& placement : state_.leases.begin()->second.placements) placement.ordered_in = 5;
  const Lease lease = LeaseOf(gang);
  WorkerSynced sync{1, 5};
  sync.held.push_back({lease.attempt_id, lease.generation});  // rank 0 alone
  EXPECT_EQ(OnlyClosed(Step(state_, sync, now_)).rank, 1);
}

TEST_F(GangsTest, OnlyRankZeroTellsProgress) {
  NewWorker(2);
  const int64_t gang = NewGang(100, 2);
  Granted();
  const Lease lease = LeaseOf(gang);
  WorkerSynced sync{1};
  sync.held.push_back({lease.attempt_id, lease.generation, true, 0, 10, 2.5});
  sync.held.push_back({lease.attempt_id, lease.generation, true, 0, 90, 9.5, 0, 1, "mine"});
  Step(state_, sync, now_);
  EXPECT_EQ(LeaseOf(gang).last_step, 10);
  EXPECT_EQ(LeaseOf(gang).loss, 2.5);
  EXPECT_EQ(LeaseOf(gang).rendezvous, "");
  EXPECT_EQ(state_.sweeps.at(1).spent_flops, 10) << "the FLOPs of a gang count once";
}

TEST_F(GangsTest, ARendezvousIsTakenToTheOtherRanks) {
  const int64_t first = NewWorker(1), second = NewWorker(1);
  const int64_t gang = NewGang(100, 2);
  Granted();
  const Lease lease = LeaseOf(gang);
  HeldLease held{lease.attempt_id, lease.generation};
  held.rendezvous = "host:1234 id";
  const Actions told = Step(state_, WorkerSynced{first, 0, {held}}, now_);
  EXPECT_EQ(LeaseOf(gang).rendezvous, "host:1234 id");
  EXPECT_TRUE(told.workers.contains(second));
  EXPECT_FALSE(Step(state_, WorkerSynced{first, 0, {held}}, now_).workers.contains(second)) << "it is no news";
}

TEST_F(GangsTest, TheOtherRanksEndWaitsForRankZero) {
  NewWorker(2);
  const int64_t gang = NewGang(10, 2);
  Granted();
  const Actions noted = FinishRank(gang, 1, Outcome::kDone);
  EXPECT_TRUE(noted.accepted);
  EXPECT_TRUE(noted.noted);
  EXPECT_THAT(noted.closed, IsEmpty());
  EXPECT_EQ(StateOf(gang), RunState::kRunning);
  now_ += state_.lease_ttl_ms - 1;
  const Lease lease = LeaseOf(gang);
  Step(state_, WorkerSynced{1, 100, {{lease.attempt_id, lease.generation}}}, now_);
  now_ += 1;
  EXPECT_THAT(Step(state_, Tick{}, now_).closed, IsEmpty()) << "a rank that has ended is not missed";
  FinishRank(gang, 0, Outcome::kDone);
  EXPECT_EQ(StateOf(gang), RunState::kDone);
}

TEST_F(GangsTest, AnErrorOfAnyRankIsTheAttempts) {
  NewWorker(2);
  const int64_t gang = NewGang(10, 2);
  Granted();
  const ClosedAttempt closed = OnlyClosed(FinishRank(gang, 1, Outcome::kDataError, "a torn file"));
  EXPECT_EQ(closed.outcome, Outcome::kDataError);
  EXPECT_EQ(closed.rank, 1);
  EXPECT_EQ(closed.message, "a torn file");
  EXPECT_EQ(StateOf(gang), RunState::kFailed);
}

TEST_F(GangsTest, ALostPeerDoesNotHideTheCause) {
  NewWorker(3);
  const int64_t gang = NewGang(10, 3);
  Granted();
  EXPECT_THAT(FinishRank(gang, 0, Outcome::kPeerLost, "rank 2 is gone").closed, IsEmpty());
  EXPECT_THAT(FinishRank(gang, 1, Outcome::kPeerLost, "rank 2 is gone").closed, IsEmpty());
  now_ += kPeerLostWaitMs - 1;
  EXPECT_THAT(Step(state_, Tick{}, now_).closed, IsEmpty());
  const ClosedAttempt closed = OnlyClosed(FinishRank(gang, 2, Outcome::kOutOfMemory, "no memory"));
  EXPECT_EQ(closed.outcome, Outcome::kOutOfMemory);
  EXPECT_EQ(closed.message, "no memory");
  EXPECT_EQ(state_.FindRun(gang)->crashes, 0);
  EXPECT_EQ(state_.FindRun(gang)->out_of_memory, 1);
}

TEST_F(GangsTest, ALostPeerWithoutACauseIsRetriedLikeACrash) {
  NewWorker(2);
  const int64_t gang = NewGang(10, 2);
  Granted();
  FinishRank(gang, 1, Outcome::kPeerLost, "no answer");
  EXPECT_EQ(NextWakeMs(state_), now_ + kPeerLostWaitMs);
  now_ += kPeerLostWaitMs;
  const ClosedAttempt closed = OnlyClosed(Step(state_, Tick{}, now_));
  EXPECT_EQ(closed.outcome, Outcome::kPeerLost);
  EXPECT_EQ(closed.message, "no answer");
  EXPECT_EQ(state_.FindRun(gang)->crashes, 1);
  EXPECT_EQ(Waits(gang), WaitReason::kBackoff);
}

TEST_F(GangsTest, WhenAllHaveLostOneAnotherNobodyIsWaitedFor) {
  NewWorker(2);
  const int64_t gang = NewGang(10, 2);
  Granted();
  FinishRank(gang, 1, Outcome::kPeerLost);
  EXPECT_EQ(OnlyClosed(FinishRank(gang, 0, Outcome::kPeerLost)).outcome, Outcome::kPeerLost);
}

TEST_F(GangsTest, AWorkerOutOfReachIsTheCauseOfALostPeer) {
  NewWorker(1);
  const int64_t second = NewWorker(1);
  const int64_t gang = NewGang(10, 2);
  Granted();
  FinishRank(gang, 0, Outcome::kPeerLost);
  Step(state_, WorkerDisconnected{second}, now_);
  now_ += kPeerLostWaitMs;
  const ClosedAttempt closed = OnlyClosed(Step(state_, Tick{}, now_));
  EXPECT_EQ(closed.outcome, Outcome::kLost);
  EXPECT_EQ(closed.rank, 1);
}

TEST_F(GangsTest, AResultWinsOverALostPeer) {
  NewWorker(2);
  const int64_t gang = NewGang(10, 2);
  Granted();
  FinishRank(gang, 1, Outcome::kPeerLost);
  FinishRank(gang, 0, Outcome::kDone);
  EXPECT_EQ(StateOf(gang), RunState::kDone);
}

TEST_F(GangsTest, AStoppedRankStopsTheOthersAndWaitsForTheirCheckpoint) {
  const int64_t first = NewWorker(1);
  NewWorker(1);
  const int64_t gang = NewGang(10, 2);
  Granted();
  const Actions noted = FinishRank(gang, 1, Outcome::kStopped);  // its worker leaves
  EXPECT_THAT(noted.closed, IsEmpty());
  EXPECT_TRUE(noted.workers.contains(first));
  EXPECT_TRUE(LeaseOf(gang).rank_stopped);
  EXPECT_EQ(OnlyClosed(FinishRank(gang, 0, Outcome::kPeerLost)).outcome, Outcome::kStopped)
      << "it was not the first to go, and did nothing wrong";
  EXPECT_EQ(state_.FindRun(gang)->crashes, 0);
  EXPECT_EQ(state_.FindRun(gang)->preemptions, 1);
}

TEST_F(GangsTest, DrainingAWorkerStopsTheWholeGang) {
  NewWorker(1);
  const int64_t second = NewWorker(1);
  const int64_t gang = NewGang(10, 2);
  Granted();
  Step(state_, DrainWorker{second, true}, now_);
  EXPECT_TRUE(LeaseOf(gang).stop);
  FinishRank(gang, 0, Outcome::kStopped);
  EXPECT_EQ(StateOf(gang), RunState::kPending);
  EXPECT_EQ(Waits(gang), WaitReason::kNoFittingWorker);
}

TEST_F(GangsTest, OutOfMemoryHalvesARanksShare) {
  NewWorker(4);
  const int64_t gang = NewGang(10, 4);
  Granted();
  const Lease lease = LeaseOf(gang);
  AttemptFinished finish{gang, lease.attempt_id, lease.generation, Outcome::kOutOfMemory};
  finish.batch_sequences = 64;
  finish.rank = 3;
  Step(state_, finish, now_);
  EXPECT_EQ(state_.FindRun(gang)->micro_batch, 8u);
}

TEST_F(GangsTest, OutOfMemoryHalvesWhatTheTrainerTells) {
  NewWorker(4);
  const int64_t gang = NewGang(10, 4);
  const auto next_after = [&](int64_t told) {
    Granted();
    const Lease lease = LeaseOf(gang);
    AttemptFinished finish{gang, lease.attempt_id, lease.generation, Outcome::kOutOfMemory};
    finish.micro_batch = told;
    finish.batch_sequences = 64;
    finish.rank = 2;
    Step(state_, finish, now_);
    return state_.FindRun(gang)->micro_batch;
  };
  EXPECT_EQ(next_after(12), 6u);  // its own plan, of a share of 16
  EXPECT_EQ(next_after(32), 3u);  // not more than it was given
  EXPECT_EQ(next_after(0), 1u);   // it does not tell
}

}  // namespace
}  // namespace allometry::scheduler
