#include <gmock/gmock.h>

#include "coordinator/scheduler/gangs.h"
#include "coordinator/scheduler/retry.h"
#include "tests/unit/scheduler/scheduler_fixture.h"

// GPUs by number: runs that share one, memory, and devices out of service.
namespace allometry::scheduler {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kGpuBytes = 80'000;

class DevicesTest : public SchedulerTest {
 protected:
  int64_t NewGpus(int count, int64_t memory_bytes = kGpuBytes, const std::string& kind = "H100") {
    Worker worker;
    worker.id = static_cast<int64_t>(state_.workers.size()) + 1;
    worker.kind = kind;
    worker.slots = count;
    worker.memory_bytes = 1;  // of the machine: says nothing of its GPUs
    worker.devices.assign(static_cast<size_t>(count), {memory_bytes, ""});
    worker.trainers = {state_.TrainerNumber("builtin")};
    Step(state_, WorkerJoined{worker}, now_);
    Step(state_, WorkerSynced{worker.id}, now_);
    return worker.id;
  }
  int64_t NewShared(double flops, uint8_t slots_per_gpu, int64_t whole_bytes = 0, int64_t divided_bytes = 0,
                    uint16_t devices = 1) {
    const int64_t id = NewRun(flops);
    state_.FindRun(id)->memory_bytes = 1'000'000;  // of a CPU
    Step(state_, SetDevices{id, devices, 64, 0, slots_per_gpu, whole_bytes, divided_bytes}, now_);
    return id;
  }
  std::pair<int, int> PlaceOf(int64_t run) {
    const Placement& placement = LeaseOf(run).placements.front();
    return {placement.device, placement.parts};
  }
  void Report(int64_t worker, std::map<int, std::string> faults) {
    WorkerSynced sync{worker};
    for (const auto& [id, lease] : state_.leases)
      if (lease.IsOn(worker)) sync.held.push_back({id, lease.generation});
    sync.faults = std::move(faults);
    Step(state_, sync, now_);
  }
  void EndBackoffs() {
    now_ += kFirstBackoffMs;
    Step(state_, Tick{}, now_);
  }
};

TEST_F(DevicesTest, SmallRunsFillADeviceBeforeTheNextOne) {
  NewGpus(2);
  std::vector<int64_t> runs;
  for (int i = 0; i < 9; ++i) runs.push_back(NewShared(i, 4));
  EXPECT_THAT(Granted(), SizeIs(8));
  for (int i = 0; i < 8; ++i) EXPECT_EQ(PlaceOf(runs[static_cast<size_t>(i)]), std::make_pair(i / 4, 4)) << i;
  EXPECT_EQ(Waits(runs[8]), WaitReason::kReady);
  Finish(runs[5], Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(runs[8]));
  EXPECT_EQ(PlaceOf(runs[8]), std::make_pair(1, 4));
}

TEST_F(DevicesTest, DifferentSharesNeverAddUpToMoreThanTheDevice) {
  NewGpus(1);
  const int64_t half = NewShared(1, 2), eighth = NewShared(2, 8), other_half = NewShared(3, 2),
                quarter = NewShared(4, 4);
  EXPECT_THAT(Granted(), ElementsAre(half, eighth)) << "the parts that are left are kept for the half that waits";
  Finish(half, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(other_half, quarter));
}

TEST_F(DevicesTest, ARunTakesMorePartsWhereItNeedsTheMemory) {
  NewGpus(1);
  // An eighth has 10,000 bytes, of which half may be filled.
  const int64_t small = NewShared(1, 8, 4'000, 1'000), larger = NewShared(2, 8, 5'001), whole = NewShared(3, 1, 40'000);
  EXPECT_THAT(Granted(), ElementsAre(small, larger));
  EXPECT_EQ(PlaceOf(small).second, 2);
  EXPECT_EQ(PlaceOf(larger).second, 4);
  EXPECT_EQ(Waits(whole), WaitReason::kReady);
  const int64_t too_large = NewShared(4, 8, 40'001);
  EXPECT_EQ(Waits(too_large), WaitReason::kNoFittingWorker);
}

TEST_F(DevicesTest, AGangTakesWholeDevicesAndPartsAreKeptForAWaitingWholeOne) {
  NewGpus(3);
  const int64_t small = NewShared(1, 16), gang = NewGang(2, 2);
  EXPECT_THAT(Granted(), ElementsAre(small, gang));
  const Lease& lease = LeaseOf(gang);
  EXPECT_EQ(lease.placements[0].device, 1);
  EXPECT_EQ(lease.placements[1].device, 2);
  const int64_t whole = NewShared(3, 1), late = NewShared(4, 16);
  EXPECT_THAT(Granted(), IsEmpty()) << "small ones that came later would take the device for ever";
  Finish(small, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(whole));
  Finish(gang, Outcome::kDone);
  EXPECT_THAT(Granted(), ElementsAre(late));
}

TEST_F(DevicesTest, AutoGoesByTheMemoryOfTheGpus) {
  NewGpus(4);
  // Of a rank: 10,000 + 100,000 / ranks, of which half of 80,000 must hold.
  const int64_t run = NewShared(1, 1, 10'000, 100'000, 0);
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(run)), 4);
  const int64_t smaller = NewShared(2, 1, 10'000, 60'000, 0);
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(smaller)), 2);
  NewGpus(1, 2 * kGpuBytes, "H200");
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(smaller)), 1);
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(NewShared(3, 1, 100'000, 0, 0))), 0);
}

TEST_F(DevicesTest, ADeviceOfUnknownMemoryHoldsWhateverIsAsked) {
  NewGpus(1, 0);
  const int64_t run = NewShared(1, 2, int64_t{1} << 50);
  EXPECT_THAT(Granted(), ElementsAre(run));
  EXPECT_EQ(PlaceOf(run).second, 8);
}

TEST_F(DevicesTest, ALostDeviceIsOutOfServiceAtOnceAndUntilItsWorkerTellsOtherwise) {
  const int64_t worker = NewGpus(2);
  const int64_t run = NewRun(1);
  Granted();
  ASSERT_EQ(PlaceOf(run).first, 0);
  state_.FindRun(run)->checkpoint_step = 40;
  Finish(run, Outcome::kDeviceLost, 50);
  EXPECT_EQ(StateOf(run), RunState::kPending);
  EXPECT_EQ(state_.FindRun(run)->checkpoint_step, 40);
  EXPECT_EQ(state_.FindRun(run)->preemptions, 1) << "the device's fault, not the run's";
  EXPECT_EQ(state_.FindRun(run)->crashes, 0);
  EndBackoffs();
  EXPECT_THAT(Granted(), ElementsAre(run));
  EXPECT_EQ(PlaceOf(run).first, 1);
  const int64_t next = NewRun(2);
  Report(worker, {{0, "device_lost: uncorrectable ECC error encountered"}});
  EXPECT_THAT(Granted(), IsEmpty());
  EXPECT_EQ(Waits(NewGang(3, 2)), WaitReason::kNoFittingWorker);
  Report(worker, {});
  EXPECT_THAT(Granted(), ElementsAre(next));
}

TEST_F(DevicesTest, ATooOldDriverIsEveryDevices) {
  NewGpus(2);
  const int64_t other = NewGpus(1);
  const int64_t run = NewRun(1);
  Granted();
  ASSERT_EQ(LeaseOf(run).worker_id(), 1);
  Finish(run, Outcome::kDriverTooOld);
  EndBackoffs();
  EXPECT_THAT(Granted(), ElementsAre(run));
  EXPECT_EQ(LeaseOf(run).worker_id(), other);
}

TEST_F(DevicesTest, EndsOfDevicesAreCountedByWhoseFaultTheyAre) {
  scheduler::Run run;
  EXPECT_EQ(DecideRetry(run, {Outcome::kDeviceFull}).state, RunState::kPending);
  EXPECT_EQ(DecideRetry(run, {Outcome::kDriverTooOld}).backoff_ms, kFirstBackoffMs);
  EXPECT_EQ(DecideRetry(run, {Outcome::kDeviceLost, true}).backoff_ms, kFirstBackoffMs);
  EXPECT_EQ(run.preemptions, 3);
  EXPECT_EQ(run.crashes, 0);
  for (int i = 0; i < kMaxCrashes; ++i) EXPECT_EQ(DecideRetry(run, {Outcome::kDeviceLost}).state, RunState::kPending);
  EXPECT_EQ(DecideRetry(run, {Outcome::kDeviceLost}).state, RunState::kFailed) << "a run that breaks every device";
  scheduler::Run silent;
  EXPECT_EQ(DecideRetry(silent, {Outcome::kCollectiveTimeout}).state, RunState::kPending);
  EXPECT_EQ(silent.crashes, 1);
}

TEST_F(DevicesTest, ASilentRankEndsTheGangWithoutWaitingForACause) {
  NewGpus(2);
  const int64_t gang = NewGang(1, 2);
  Granted();
  const Actions actions = FinishRank(gang, 1, Outcome::kCollectiveTimeout, "rank 0 has said nothing for 1800 s");
  ASSERT_THAT(actions.closed, SizeIs(1));
  EXPECT_EQ(actions.closed[0].outcome, Outcome::kCollectiveTimeout);
  EXPECT_EQ(StateOf(gang), RunState::kPending);
}

}  // namespace
}  // namespace allometry::scheduler
