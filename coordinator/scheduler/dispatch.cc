#include "coordinator/scheduler/dispatch.h"

#include <algorithm>

#include "coordinator/scheduler/queues.h"

namespace allometry::scheduler {
namespace {

struct Room {
  const Worker* worker = nullptr;
  int slots = 0;
  int64_t memory_bytes = 0;  // not promised to live leases; only where the worker's is known
};

bool CanTake(const Room& room, const Run& run) {
  return room.slots > 0 && room.worker->trainers.contains(run.trainer) &&
         (room.worker->memory_bytes == 0 || run.memory_bytes <= room.memory_bytes);
}

class Dispatcher {
 public:
  Dispatcher(State& state, int64_t now_ms, Actions& actions) : state_(state), now_ms_(now_ms), actions_(actions) {
    for (const auto& [id, worker] : state.workers)
      if (worker.connected && !worker.draining) rooms_[id] = {&worker, worker.slots, worker.memory_bytes};
    for (const auto& [id, lease] : state.leases) Occupy(lease.worker_id, *state.FindRun(lease.run_id));
  }

  void Run() {
    for (const auto& [priority, id] : state_.sweep_order) {
      Sweep& sweep = state_.sweeps.at(id);
      const bool open =
          sweep.state == SweepState::kActive || (sweep.state == SweepState::kCancelled && state_.hooks.lease_cancelled);
      if (open && free_slots_ > 0) GrantFrom(sweep);
    }
  }

  void CountFree() {
    for (const auto& [id, room] : rooms_) free_slots_ += std::max(0, room.slots);
  }

 private:
  void Occupy(int64_t worker_id, const scheduler::Run& run) {
    auto room = rooms_.find(worker_id);
    if (room == rooms_.end()) return;
    room->second.slots--;
    room->second.memory_bytes -= run.memory_bytes;
  }

  bool AnyRoomFor(uint16_t trainer) const {
    return std::ranges::any_of(
        rooms_, [&](const auto& r) { return r.second.slots > 0 && r.second.worker->trainers.contains(trainer); });
  }

  void GrantFrom(Sweep& sweep) {
    double left = UnpromisedFlops(state_, sweep);
    for (auto& [trainer, queue] : sweep.ready)
      for (auto key = queue.begin(); key != queue.end() && AnyRoomFor(trainer);) {
        scheduler::Run& run = *state_.FindRun((key++)->run_id);
        if (RestFlops(run) > left) continue;
        const int64_t worker_id = Choose(run);
        if (worker_id == 0) continue;
        Grant(sweep, run, worker_id);
        left = UnpromisedFlops(state_, sweep);
      }
  }

  int64_t Choose(const scheduler::Run& run) const {
    if (auto last = rooms_.find(run.last_worker); last != rooms_.end() && CanTake(last->second, run))
      return last->first;
    int64_t best = 0;
    int best_slots = 0;
    for (const auto& [id, room] : rooms_)
      if (CanTake(room, run) && room.slots > best_slots) best = id, best_slots = room.slots;
    return best;
  }

  void Grant(Sweep& sweep, scheduler::Run& run, int64_t worker_id) {
    Lease lease;
    lease.attempt_id = state_.next_attempt_id++;
    lease.run_id = run.id;
    lease.generation = ++run.generation;
    lease.worker_id = worker_id;
    lease.sweep_id = sweep.id;
    lease.expires_ms = now_ms_ + state_.lease_ttl_ms;
    lease.first_step = lease.last_step = run.checkpoint_step;
    state_.leases[lease.attempt_id] = lease;
    run.live_attempt = lease.attempt_id;
    run.last_worker = worker_id;
    if (state_.hooks.lease_twice)
      actions_.runs.insert(run.id);
    else
      SetState(state_, run, RunState::kRunning, actions_);
    Occupy(worker_id, run);
    free_slots_--;
    actions_.opened.push_back(lease);
    actions_.workers.insert(worker_id);
    actions_.sweeps.insert(sweep.id);
  }

  State& state_;
  int64_t now_ms_;
  Actions& actions_;
  std::map<int64_t, Room> rooms_;
  int free_slots_ = 0;
};

}  // namespace

void GrantLeases(State& state, int64_t now_ms, Actions& actions) {
  Dispatcher dispatcher(state, now_ms, actions);
  dispatcher.CountFree();
  dispatcher.Run();
}

}  // namespace allometry::scheduler
