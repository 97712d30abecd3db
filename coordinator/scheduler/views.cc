#include <algorithm>
#include <limits>
#include <set>

#include "coordinator/scheduler/gangs.h"
#include "coordinator/scheduler/queues.h"
#include "coordinator/scheduler/retry.h"

namespace allometry::scheduler {

const char* OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kLive:
      return "live";
    case Outcome::kDone:
      return "done";
    case Outcome::kStopped:
      return "stopped";
    case Outcome::kConfigError:
      return "config_error";
    case Outcome::kDataError:
      return "data_error";
    case Outcome::kDiverged:
      return "diverged";
    case Outcome::kOutOfMemory:
      return "oom";
    case Outcome::kCrash:
      return "crash";
    case Outcome::kLimit:
      return "limit";
    case Outcome::kLostInput:
      return "lost_input";
    case Outcome::kLost:
      return "lost";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kPeerLost:
      return "peer_lost";
    case Outcome::kDeviceLost:
      return "device_lost";
    case Outcome::kDeviceFull:
      return "device_full";
    case Outcome::kDriverTooOld:
      return "driver_too_old";
    case Outcome::kCollectiveTimeout:
      return "collective_timeout";
  }
  return "";
}

bool IsFaultOfDevice(Outcome outcome) {
  return outcome == Outcome::kDeviceLost || outcome == Outcome::kDeviceFull || outcome == Outcome::kDriverTooOld;
}

bool Lease::IsOn(int64_t worker_id) const {
  return std::ranges::any_of(placements, [&](const Placement& p) { return p.worker_id == worker_id; });
}

int64_t Lease::expires_ms() const {
  int64_t first = std::numeric_limits<int64_t>::max();
  for (const Placement& placement : placements)
    if (!placement.finished) first = std::min(first, placement.expires_ms);
  return first;
}

uint16_t State::TrainerNumber(const std::string& name) {
  auto found = std::ranges::find(trainers, name);
  if (found == trainers.end()) found = trainers.insert(trainers.end(), name);
  return static_cast<uint16_t>(found - trainers.begin());
}

const Lease* CurrentLease(const State& state, int64_t run_id, int64_t attempt_id, int64_t generation) {
  const Run* run = state.FindRun(run_id);
  const auto lease = run == nullptr ? state.leases.end() : state.leases.find(run->live_attempt);
  if (lease == state.leases.end()) return nullptr;
  const bool current = lease->first == attempt_id && lease->second.generation == generation;
  return current || state.hooks.skip_generation_check ? &lease->second : nullptr;
}

double FlopsOfSteps(const Run& run, int64_t steps) {
  return run.steps > 0 ? run.flops * static_cast<double>(steps) / static_cast<double>(run.steps) : 0.0;
}

double RestFlops(const Run& run) { return FlopsOfSteps(run, run.steps - run.checkpoint_step); }

double ReservedFlops(const State& state, int64_t sweep_id) {
  double reserved = 0;
  for (const auto& [id, lease] : state.leases) {
    const Run& run = *state.FindRun(lease.run_id);
    if (lease.sweep_id == sweep_id) reserved += FlopsOfSteps(run, run.steps - lease.last_step);
  }
  return reserved;
}

double UnpromisedFlops(const State& state, const Sweep& sweep) {
  if (sweep.budget_flops <= 0) return std::numeric_limits<double>::infinity();
  return sweep.budget_flops - sweep.spent_flops - ReservedFlops(state, sweep.id);
}

int BusySlots(const State& state, int64_t worker_id) {
  int busy = 0;
  std::set<int> devices;
  for (const auto& [id, lease] : state.leases)
    for (const Placement& placement : lease.placements)
      if (placement.worker_id == worker_id) busy += placement.device < 0 || devices.insert(placement.device).second;
  return busy;
}

int FreeSlots(const State& state, const Worker& worker) {
  Room room = EmptyRoom(worker);
  for (const auto& [id, lease] : state.leases)
    for (const Placement& placement : lease.placements)
      if (placement.worker_id == worker.id) Occupy(room, placement.device, placement.parts, 0);
  return std::max(0, room.slots);
}

bool IsWanted(const State& state, const Run& run) {
  return std::ranges::any_of(run.sweeps,
                             [&](int64_t id) { return state.sweeps.at(id).state != SweepState::kCancelled; });
}

bool HasFittingWorker(const State& state, const Run& run) {
  if (run.devices != 1) return RanksFor(EmptyRooms(state), run) > 0;
  return std::ranges::any_of(state.workers, [&](const auto& entry) {  // as above, for the many, without a map
    const Worker& worker = entry.second;
    return worker.connected && !worker.draining && RanksThatFit(EmptyRoom(worker), run, 1) > 0;
  });
}

WaitReason WaitReasonOf(const State& state, const Run& run) {
  if (run.state != RunState::kPending) return WaitReason::kNone;
  if (!IsWanted(state, run)) return WaitReason::kCancelled;
  if (run.blocked) return WaitReason::kBlocked;
  if (!ParentsReady(state, run)) return WaitReason::kParentPending;
  std::vector<const Sweep*> active;
  for (int64_t id : run.sweeps)
    if (state.sweeps.at(id).state == SweepState::kActive) active.push_back(&state.sweeps.at(id));
  if (active.empty()) return WaitReason::kPaused;
  if (run.backoff_until_ms != 0) return WaitReason::kBackoff;
  if (std::ranges::none_of(active,
                           [&](const Sweep* sweep) { return RestFlops(run) <= UnpromisedFlops(state, *sweep); }))
    return WaitReason::kOverBudget;
  return HasFittingWorker(state, run) ? WaitReason::kReady : WaitReason::kNoFittingWorker;
}

std::optional<int64_t> NextWakeMs(const State& state) {
  std::optional<int64_t> next;
  auto consider = [&](int64_t at_ms) { next = next ? std::min(*next, at_ms) : at_ms; };
  for (const auto& [id, lease] : state.leases) {
    consider(lease.expires_ms());
    if (lease.peer_lost_until_ms != 0) consider(lease.peer_lost_until_ms);
  }
  for (const auto& [id, worker] : state.workers)
    if (worker.connected) consider(worker.last_heard_ms + state.lease_ttl_ms);
  if (!state.backoffs.empty()) consider(state.backoffs.begin()->first);
  return next;
}

void Rebuild(State& state, int64_t now_ms) {
  Actions ignored;
  for (auto& [id, sweep] : state.sweeps) {
    sweep.counts = {};
    sweep.ready.clear();
    state.sweep_order.insert({-sweep.priority, id});
  }
  std::vector<std::vector<int64_t>> wanted_by(state.runs.size());
  for (Run& run : state.runs) {
    wanted_by[run.id - 1].swap(run.sweeps);
    run.queued = run.blocked = false;
  }
  // Parents come before children, so that one pass settles the marks.
  for (Run& run : state.runs) {
    RefreshBlocked(state, run, ignored);
    // How long a run has waited is not stored: it waits its full time again.
    if (run.state == RunState::kPending && run.crashes > 0) StartBackoff(state, run, now_ms + BackoffMs(run.crashes));
    for (int64_t id : wanted_by[run.id - 1]) Attach(state, run, state.sweeps.at(id), ignored);
  }
}

}  // namespace allometry::scheduler
