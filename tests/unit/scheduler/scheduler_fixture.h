#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coordinator/scheduler/scheduler.h"

namespace allometry::scheduler {

// A small cluster: sweep 1, workers made as needed, runs of 100 steps.
class SchedulerTest : public ::testing::Test {
 protected:
  SchedulerTest() { AddSweepWith({}); }

  void AddSweepWith(Sweep sweep) {
    sweep.id = static_cast<int64_t>(state_.sweeps.size()) + 1;
    if (sweep.policy == nullptr) sweep.policy = FindPolicy("");
    Step(state_, AddSweep{sweep}, now_);
  }

  int64_t NewRun(double flops, std::vector<int64_t> parents = {}, int64_t sweep = 1) {
    scheduler::Run run;
    run.id = static_cast<int64_t>(state_.runs.size()) + 1;
    run.flops = flops;
    run.steps = 100;
    run.parents = std::move(parents);
    run.trainer = state_.TrainerNumber("builtin");
    Step(state_, AddRun{run}, now_);
    Step(state_, AttachCells{sweep, {run.id}}, now_);
    return run.id;
  }

  int64_t NewGang(double flops, uint16_t devices, int64_t memory_bytes = 0, int64_t replicated_bytes = 0) {
    const int64_t id = NewRun(flops);
    state_.FindRun(id)->memory_bytes = memory_bytes;
    Step(state_, SetDevices{id, devices, 64, replicated_bytes}, now_);
    return id;
  }

  int64_t NewWorker(int slots, int64_t memory_bytes = 0, const std::string& kind = "cpu") {
    Worker worker;
    worker.kind = kind;
    worker.id = static_cast<int64_t>(state_.workers.size()) + 1;
    worker.slots = slots;
    worker.memory_bytes = memory_bytes;
    worker.trainers = {state_.TrainerNumber("builtin")};
    Step(state_, WorkerJoined{worker}, now_);
    Step(state_, WorkerSynced{worker.id}, now_);
    return worker.id;
  }

  // Workers of the run's ranks, in order.
  std::vector<int64_t> PlacesOf(int64_t run) {
    std::vector<int64_t> workers;
    for (const Placement& placement : LeaseOf(run).placements) workers.push_back(placement.worker_id);
    return workers;
  }

  // The worker reports all that it holds.
  Actions SyncAll(int64_t worker_id, uint64_t acknowledged = 0) {
    WorkerSynced sync{worker_id, acknowledged};
    for (const auto& [id, lease] : state_.leases)
      for (size_t rank = 0; rank < lease.placements.size(); ++rank)
        if (lease.placements[rank].worker_id == worker_id) {
          HeldLease held{id, lease.generation};
          held.rank = static_cast<int>(rank);
          sync.held.push_back(held);
        }
    return Step(state_, sync, now_);
  }

  Actions FinishRank(int64_t run, int rank, Outcome outcome, const std::string& message = "") {
    const Lease lease = LeaseOf(run);
    AttemptFinished finish{run, lease.attempt_id, lease.generation, outcome};
    finish.rank = rank;
    finish.message = message;
    return Step(state_, finish, now_);
  }

  // Runs that get a lease, in order.
  std::vector<int64_t> Granted() {
    std::vector<int64_t> runs;
    for (const Lease& lease : Step(state_, Dispatch{}, now_).opened) runs.push_back(lease.run_id);
    return runs;
  }

  const Lease& LeaseOf(int64_t run) { return state_.leases.at(state_.FindRun(run)->live_attempt); }

  Actions Finish(int64_t run, Outcome outcome, int64_t last_step = 0, bool keeps_outputs = true) {
    const Lease lease = LeaseOf(run);
    return Step(state_, AttemptFinished{run, lease.attempt_id, lease.generation, outcome, last_step, keeps_outputs, 16},
                now_);
  }

  Actions Report(int64_t run, int64_t step, int64_t resumed_step = 0) {
    const Lease lease = LeaseOf(run);
    WorkerSynced sync{lease.worker_id()};
    for (const auto& [id, other] : state_.leases)
      if (other.worker_id() == lease.worker_id() && id != lease.attempt_id) sync.held.push_back({id, other.generation});
    sync.held.push_back({lease.attempt_id, lease.generation, true, resumed_step, step});
    return Step(state_, sync, now_);
  }

  RunState StateOf(int64_t run) { return state_.FindRun(run)->state; }
  WaitReason Waits(int64_t run) { return WaitReasonOf(state_, *state_.FindRun(run)); }

  State state_;
  int64_t now_ = 1'000;
};

}  // namespace allometry::scheduler
