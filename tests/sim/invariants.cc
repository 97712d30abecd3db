#include "tests/sim/invariants.h"

#include <cmath>

#include "coordinator/scheduler/gangs.h"

namespace allometry::sim {

using coordinator::Core;
using namespace scheduler;

namespace {

constexpr int64_t kCommitsBetweenAccounts = 20;

std::string Name(const Run& run) { return "run " + std::to_string(run.id); }

bool IsCrash(const coordinator::store::AttemptRow& attempt) {
  return attempt.outcome == "crash" || attempt.outcome == "peer_lost" || attempt.outcome == "lost_input" ||
         attempt.outcome == "collective_timeout" ||
         ((attempt.outcome == "lost" || attempt.outcome == "device_lost") && attempt.last_step == attempt.first_step);
}

bool IsTerminal(RunState state) { return state != RunState::kPending && state != RunState::kRunning; }

}  // namespace

void Invariants::AfterCommit(Core& core, bool settled) {
  const State& state = core.scheduler_state();
  CheckLeases(state);
  for (const Run& run : state.runs) CheckRun(core, run, settled);
  CheckAcknowledged(core);
  if (++commits_ % kCommitsBetweenAccounts == 0) CheckBudgets(core);
}

void Invariants::CheckAll(Core& core) {
  AfterCommit(core, false);
  CheckBudgets(core);
}

void Invariants::CheckLeases(const State& state) {
  std::set<int64_t> leased;
  for (const auto& [id, lease] : state.leases) {
    const Run& run = *state.FindRun(lease.run_id);
    if (!leased.insert(run.id).second) world_.Violate(Name(run) + " has two live leases");
    if (run.state != RunState::kRunning || run.live_attempt != id)
      world_.Violate(Name(run) + " has a lease and does not run");
    if (lease.generation != run.generation) world_.Violate(Name(run) + " has a lease of an old generation");
  }
  CheckPlacements(state);
  for (const Run& run : state.runs)
    if (run.state == RunState::kRunning && !leased.contains(run.id))
      world_.Violate(Name(run) + " runs without a lease");
}

void Invariants::CheckPlacements(const State& state) {
  for (const auto& [id, lease] : state.leases) {
    const Run& run = *state.FindRun(lease.run_id);
    if (run.devices != 0 && lease.placements.size() != run.devices)
      world_.Violate(Name(run) + " has " + std::to_string(lease.placements.size()) + " ranks");
    std::set<std::string> kinds;
    for (const Placement& placement : lease.placements) {
      const auto worker = state.workers.find(placement.worker_id);
      if (worker != state.workers.end()) kinds.insert(worker->second.kind);
      if (worker == state.workers.end() && !placement.finished)
        world_.Violate(Name(run) + " has a rank where no worker is");
    }
    if (kinds.size() > 1) world_.Violate(Name(run) + " has ranks on several kinds of devices");
  }
  for (const auto& [id, worker] : state.workers)
    if (worker.devices.empty() && BusySlots(state, id) > worker.slots)
      world_.Violate("worker " + std::to_string(id) + " has too many ranks");
  CheckDevices(state);
}

// The shares of the attempts on one device never exceed 1, nor does what they need of its memory.
void Invariants::CheckDevices(const State& state) {
  std::map<std::pair<int64_t, int>, int> parts;
  for (const auto& [id, lease] : state.leases)
    for (const Placement& placement : lease.placements) {
      const auto worker = state.workers.find(placement.worker_id);
      if (worker == state.workers.end() || worker->second.devices.empty()) continue;
      const Run& run = *state.FindRun(lease.run_id);
      if (placement.device < 0 || placement.device >= static_cast<int>(worker->second.devices.size()))
        world_.Violate(Name(run) + " is on a device that its worker does not have");
      else if ((parts[{placement.worker_id, placement.device}] += placement.parts) > kPartsOfDevice)
        world_.Violate("the shares of the attempts on device " + std::to_string(placement.device) + " exceed 1");
      if (lease.gang() && placement.parts != kPartsOfDevice)
        world_.Violate(Name(run) + " has a part of a device a rank");
      int64_t memory_bytes = worker->second.devices.front().memory_bytes / kPartsOfDevice * placement.parts;
      if (placement.parts < kPartsOfDevice) memory_bytes -= kContextBytesOfGpu;
      if (run.gpu_whole_bytes > memory_bytes / 2) world_.Violate(Name(run) + " has too little of a device's memory");
    }
}

// Devices in service on which nothing is.
int Invariants::FreeDevices(const State& state, const Worker& worker) {
  std::set<int> used;
  for (const auto& [id, lease] : state.leases)
    for (const Placement& placement : lease.placements)
      if (placement.worker_id == worker.id) used.insert(placement.device);
  int free = 0;
  for (size_t i = 0; i < worker.devices.size(); ++i)
    free += worker.devices[i].fault.empty() && !used.contains(static_cast<int>(i));
  return free;
}

void Invariants::CheckRun(Core& core, const Run& run, bool settled) {
  Seen& seen = runs_[run.id];
  const State& state = core.scheduler_state();
  if (run.generation < seen.generation) world_.Violate("the generation of " + Name(run) + " fell");
  if (seen.state == RunState::kDone && run.state != RunState::kDone) world_.Violate(Name(run) + " is no longer done");
  const bool retried = (seen.state == RunState::kFailed || seen.state == RunState::kDiverged) && !IsTerminal(run.state);
  if (retried) seen = {seen.generation, seen.state, seen.generation};
  if (run.generation != seen.generation || run.state != seen.state) CheckAttempts(core, run, seen);
  if (run.generation != seen.generation && run.state == RunState::kRunning) CheckNewLease(state, run, seen);
  if (run.state == RunState::kPending) CheckWaiting(state, run, settled);
  seen.generation = run.generation;
  seen.state = run.state;
}

void Invariants::CheckAttempts(Core& core, const Run& run, Seen& seen) {
  int crashes = 0, out_of_memory = 0, accepted = 0, live = 0;
  for (const auto& attempt : core.store().AttemptsOf(run.id)) {
    accepted += attempt.outcome == "done";
    live += attempt.outcome == "live";
    if (attempt.generation <= seen.counted_from) continue;
    crashes += IsCrash(attempt);
    out_of_memory += attempt.outcome == "oom";
  }
  if (accepted > 1) world_.Violate(Name(run) + " has two accepted results");
  if (live > 1) world_.Violate(Name(run) + " has two live attempts in the database");
  if (crashes > 1 + kMaxCrashes) world_.Violate(Name(run) + " was tried again after too many crashes");
  if (out_of_memory > 1 + kMaxOutOfMemory)
    world_.Violate(Name(run) + " was tried again after running out of memory too often");
  if (crashes > seen.crashes) seen.crashed_ms = world_.now_ms();
  seen.crashes = crashes;
}

void Invariants::CheckNewLease(const State& state, const Run& run, const Seen& seen) {
  for (int64_t parent : run.parents)
    if (state.FindRun(parent)->state != RunState::kDone)
      world_.Violate(Name(run) + " was leased before its parent was done");
  if (!IsWanted(state, run)) world_.Violate(Name(run) + " was leased although no live sweep wants it");
  if (seen.crashes == 0) return;
  const int64_t backoff_ms = kFirstBackoffMs << (seen.crashes - 1);
  if (world_.now_ms() - seen.crashed_ms < backoff_ms) world_.Violate(Name(run) + " was leased within its backoff");
}

void Invariants::CheckWaiting(const State& state, const Run& run, bool settled) {
  const WaitReason reason = WaitReasonOf(state, run);
  if (reason == WaitReason::kNone) world_.Violate(Name(run) + " waits for no reason");
  if (!settled || reason != WaitReason::kReady) return;
  // Slots may be kept for a gang, but not as many as any of the waiting ones needs.
  int most = 1;
  for (const Run& other : state.runs)
    if (WaitReasonOf(state, other) == WaitReason::kReady) most = std::max(most, RanksFor(EmptyRooms(state), other));
  std::map<std::string, int> free;
  for (const auto& [id, worker] : state.workers)
    if (worker.connected && !worker.draining)
      free[worker.kind] += worker.devices.empty() ? worker.slots - BusySlots(state, id) : FreeDevices(state, worker);
  for (const auto& [kind, slots] : free)
    if (slots >= most) world_.Violate(Name(run) + " waits while " + std::to_string(slots) + " slots are free");
}

void Invariants::CheckBudgets(Core& core) {
  const State& state = core.scheduler_state();
  std::map<int64_t, double> executed;
  for (const Run& run : state.runs)
    for (const auto& attempt : core.store().AttemptsOf(run.id))
      executed[attempt.sweep_id] += FlopsOfSteps(run, attempt.last_step - attempt.first_step);
  for (const auto& [id, sweep] : state.sweeps) {
    if (std::abs(executed[id] - sweep.spent_flops) > 1e-9 * (1 + executed[id]))
      world_.Violate("sweep " + std::to_string(id) + " is charged " + std::to_string(sweep.spent_flops) +
                     " for steps worth " + std::to_string(executed[id]));
    if (sweep.budget_flops > 0 && sweep.spent_flops + ReservedFlops(state, id) > sweep.budget_flops * (1 + 1e-9))
      world_.Violate("sweep " + std::to_string(id) + " is over its budget");
  }
}

void Invariants::FinishAcknowledged(const v1::FinishRequest& request) {
  if (request.outcome() != v1::FinishRequest::OUTCOME_DONE) return;
  const auto [place, inserted] = accepted_.insert({request.run_id(), request.attempt_id()});
  if (!inserted && place->second != request.attempt_id())
    world_.Violate("two results were accepted for run " + std::to_string(request.run_id()));
}

void Invariants::CheckAcknowledged(Core& core) {
  for (const auto& [run_id, attempt_id] : accepted_) {
    const Run* run = core.scheduler_state().FindRun(run_id);
    const auto result = core.store().Result(run_id);
    if (run == nullptr || run->state != RunState::kDone || !result || result->attempt_id != attempt_id)
      world_.Violate("the acknowledged result of run " + std::to_string(run_id) + " is lost");
    // An attempt that was given up has nothing to say any more.
    const auto attempt = core.store().Attempt(attempt_id);
    if (!attempt || attempt->outcome != "done")
      world_.Violate("the result of run " + std::to_string(run_id) + " was accepted from an attempt that had ended");
  }
}

bool Invariants::AllAtRest(Core& core) const { return Unrest(core).empty(); }

std::string Invariants::Unrest(Core& core) const {
  const State& state = core.scheduler_state();
  std::set<int64_t> resting;
  std::string unrest;
  for (const Run& run : state.runs) {
    const WaitReason reason = WaitReasonOf(state, run);
    bool rests = IsTerminal(run.state) || reason == WaitReason::kBlocked || reason == WaitReason::kOverBudget ||
                 reason == WaitReason::kCancelled;
    if (reason == WaitReason::kParentPending)
      for (int64_t parent : run.parents)
        rests |= state.FindRun(parent)->state == RunState::kPending && resting.contains(parent);
    if (rests)
      resting.insert(run.id);
    else
      unrest += Name(run) + (run.state == RunState::kRunning
                                 ? " runs; "
                                 : " waits, reason " + std::to_string(static_cast<int>(reason)) + "; ");
  }
  return unrest;
}

}  // namespace allometry::sim
