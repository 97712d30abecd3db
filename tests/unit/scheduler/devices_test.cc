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

constexpr int64_t kGb = 1'000'000'000;
constexpr int64_t kGpuBytes = 80 * kGb;

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

TEST_F(DevicesTest, ARunThatRanOutOfMemoryTakesTwiceThePart) {
  NewGpus(1);
  const int64_t run = NewShared(1, 4), other = NewShared(2, 4);
  EXPECT_THAT(Granted(), ElementsAre(run, other));
  Finish(run, Outcome::kOutOfMemory);
  EXPECT_THAT(Granted(), ElementsAre(run));
  EXPECT_EQ(PlaceOf(run), std::make_pair(0, 8));
  Finish(run, Outcome::kOutOfMemory);
  EXPECT_THAT(Granted(), IsEmpty()) << "the other has a quarter of it";
  Finish(other, Outcome::kDone);
  for (int tries = 2; tries <= kMaxOutOfMemory; ++tries) {
    EXPECT_THAT(Granted(), ElementsAre(run));
    EXPECT_EQ(PlaceOf(run), std::make_pair(0, 16));
    Finish(run, Outcome::kOutOfMemory);
  }
  EXPECT_EQ(state_.FindRun(run)->state, RunState::kFailed);
}

// Not of what it asked for, where that was too little from the beginning.
TEST_F(DevicesTest, AfterAnOutOfMemoryARunTakesTwiceWhatItHad) {
  NewGpus(1);
  const int64_t run = NewShared(1, 8, 8 * kGb);
  EXPECT_THAT(Granted(), ElementsAre(run));
  EXPECT_EQ(PlaceOf(run), std::make_pair(0, 4));
  Finish(run, Outcome::kOutOfMemory);
  EXPECT_THAT(Granted(), ElementsAre(run));
  EXPECT_EQ(PlaceOf(run), std::make_pair(0, 8));
}

TEST_F(DevicesTest, ARunTakesMorePartsWhereItNeedsTheMemory) {
  NewGpus(1);
  // An eighth has 10 GB, of which CUDA's context takes 0.6 and half of the rest may be filled.
  const int64_t small = NewShared(1, 8, 4 * kGb, kGb * 7 / 10), larger = NewShared(2, 8, kGb * 47 / 10 + 1),
                whole = NewShared(3, 1, 64 * kGb);
  EXPECT_THAT(Granted(), ElementsAre(small, larger));
  EXPECT_EQ(PlaceOf(small).second, 2);
  EXPECT_EQ(PlaceOf(larger).second, 4);
  EXPECT_EQ(Waits(whole), WaitReason::kReady);
  const int64_t too_large = NewShared(4, 8, 64 * kGb + 1);
  EXPECT_EQ(Waits(too_large), WaitReason::kNoFittingWorker);
}

// A part of 1.25 GB: the trainer's allocator would get 0.65 of it.
TEST_F(DevicesTest, OfASmallGpuAShareIsWhatItsContextLeaves) {
  NewGpus(1, 20 * kGb);
  const int64_t tiny = NewShared(1, 16, kGb * 325 / 1000), larger = NewShared(2, 16, kGb * 4 / 10);
  EXPECT_THAT(Granted(), ElementsAre(tiny, larger));
  EXPECT_EQ(PlaceOf(tiny).second, 1);
  EXPECT_EQ(PlaceOf(larger).second, 2);
  NewGpus(1, 9 * kGb, "MIG");
  EXPECT_EQ(PartsOn(*state_.FindRun(NewShared(3, 16, 1)), {9 * kGb, ""}), 2) << "a sixteenth is less than a context";
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
  // Of a rank: 10 GB + 200 GB / ranks, which nine tenths of 80 GB must hold, without 8 GB.
  const int64_t run = NewShared(1, 1, 10 * kGb, 200 * kGb, 0);
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(run)), 4);
  const int64_t smaller = NewShared(2, 1, 10 * kGb, 60 * kGb, 0);
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(smaller)), 2);
  NewGpus(1, 2 * kGpuBytes, "H200");
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(smaller)), 1);
  EXPECT_EQ(RanksFor(EmptyRooms(state_), *state_.FindRun(NewShared(3, 1, 140 * kGb, 0, 0))), 0);
}

TEST(UsableOfGpu, IsHalfOfASmallOneAndMostOfALargeOne) {
  EXPECT_EQ(UsableOfGpu(16e9), 8e9);
  EXPECT_EQ(UsableOfGpu(20e9), 10e9);
  EXPECT_EQ(UsableOfGpu(80e9), 64e9);
  for (const double bytes : {1e9, 9e9, 11e9, 40e9, 200e9}) EXPECT_NEAR(UsableOfGpu(GpuFor(bytes)), bytes, 1);
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

// The workers' probe answers for the built-in trainer's CUDA alone.
TEST_F(DevicesTest, ATooOldDriverForATrainerOfOnesOwnIsItsOwnAffair) {
  const int64_t worker = NewGpus(1);
  scheduler::Run own;
  const int64_t run = own.id = 1;
  own.steps = 100;
  own.trainer = state_.TrainerNumber("mine");
  state_.workers.at(worker).trainers.insert(own.trainer);
  Step(state_, AddRun{own}, now_);
  Step(state_, AttachCells{1, {run}}, now_);
  ASSERT_THAT(Granted(), ElementsAre(run));
  const int64_t other = NewRun(2);
  Finish(run, Outcome::kDriverTooOld);
  EXPECT_EQ(state_.workers.at(worker).devices[0].fault, "");
  EXPECT_EQ(state_.FindRun(run)->crashes, 1);
  EXPECT_EQ(state_.FindRun(run)->preemptions, 0);
  EXPECT_THAT(Granted(), ElementsAre(other)) << "the device is in service";
}

TEST_F(DevicesTest, EndsOfDevicesAreCountedByWhoseFaultTheyAre) {
  scheduler::Run run;
  EXPECT_EQ(DecideRetry(run, {Outcome::kDeviceFull}).state, RunState::kPending);
  EXPECT_EQ(DecideRetry(run, {Outcome::kDriverTooOld}).backoff_ms, kFirstBackoffMs);
  EXPECT_EQ(DecideRetry(run, {Outcome::kDeviceLost, true}).backoff_ms, kFirstBackoffMs);
  EXPECT_EQ(run.preemptions, 3);
  EXPECT_EQ(run.crashes, 0);
  scheduler::Run own;
  EXPECT_EQ(DecideRetry(own, {.outcome = Outcome::kDriverTooOld, .builtin = false}).state, RunState::kPending);
  EXPECT_EQ(own.crashes, 1);
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
