#include "coordinator/scheduler/dispatch.h"

#include <algorithm>

#include "coordinator/scheduler/gangs.h"
#include "coordinator/scheduler/queues.h"

namespace allometry::scheduler {
namespace {

class Dispatcher {
 public:
  Dispatcher(State& state, int64_t now_ms, Actions& actions)
      : state_(state), now_ms_(now_ms), actions_(actions), empty_(EmptyRooms(state)), rooms_(empty_) {
    for (const auto& [id, lease] : state.leases) Occupy(lease);
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
  void Occupy(const Lease& lease) {
    const int64_t memory_bytes = MemoryOfRank(*state_.FindRun(lease.run_id), static_cast<int>(lease.placements.size()));
    for (const Placement& placement : lease.placements) {
      auto room = rooms_.find(placement.worker_id);
      if (room == rooms_.end()) continue;
      room->second.slots--;
      room->second.memory_bytes -= memory_bytes;
    }
  }

  bool AnyRoomFor(uint16_t trainer) const {
    return std::ranges::any_of(rooms_, [&](const auto& r) {
      return r.second.slots > 0 && r.second.worker->trainers.contains(trainer) && !held_back_.contains(r.first);
    });
  }

  void GrantFrom(Sweep& sweep) {
    double left = UnpromisedFlops(state_, sweep);
    double kept = 0;  // of the budget, for gangs that slots are kept for
    for (auto& [trainer, queue] : sweep.ready)
      for (auto key = queue.begin(); key != queue.end() && AnyRoomFor(trainer);) {
        scheduler::Run& run = *state_.FindRun((key++)->run_id);
        if (RestFlops(run) > left - kept) continue;
        const std::vector<int64_t> workers = Choose(run, &kept);
        if (workers.empty()) continue;
        Grant(sweep, run, workers);
        left = UnpromisedFlops(state_, sweep);
      }
  }

  // The workers of the run's ranks; none: it waits. What a gang that slots are kept for will cost is added to `kept`.
  std::vector<int64_t> Choose(const scheduler::Run& run, double* kept) {
    const int ranks = run.devices == 1 ? 1 : RanksFor(empty_, run);
    if (ranks == 0) return {};
    if (ranks == 1) return ChooseOne(run);
    std::vector<int64_t> workers = Place(rooms_, run, ranks, held_back_);
    if (workers.empty() && state_.hooks.part_of_a_gang) workers = ChooseOne(run);
    if (!workers.empty()) return workers;
    HoldBack(run, ranks);
    *kept += RestFlops(run);
    return {};
  }

  // Slots that become free are kept for the first gang that waits for devices of their kind, or runs behind it that
  // need one slot each would take them for ever. It is enough to keep a kind, and the same one each time: a gang may be
  // spread over all workers of it, and every slot of it that ends brings it nearer.
  void HoldBack(const scheduler::Run& run, int ranks) {
    const Offer offer = LargestOffer(empty_, run, ranks);
    for (const auto& [id, room] : empty_)
      if (room.worker->kind == offer.kind && RanksThatFit(room, run, ranks) > 0) held_back_.insert(id);
  }

  std::vector<int64_t> ChooseOne(const scheduler::Run& run) const {
    const auto can_take = [&](int64_t id, const Room& room) {
      return !held_back_.contains(id) && RanksThatFit(room, run, 1) > 0;
    };
    if (auto last = rooms_.find(run.last_worker); last != rooms_.end() && can_take(last->first, last->second))
      return {last->first};
    int64_t best = 0;
    int best_slots = 0;
    for (const auto& [id, room] : rooms_)
      if (room.slots > best_slots && can_take(id, room)) best = id, best_slots = room.slots;
    return best == 0 ? std::vector<int64_t>{} : std::vector<int64_t>{best};
  }

  void Grant(Sweep& sweep, scheduler::Run& run, const std::vector<int64_t>& workers) {
    Lease lease;
    lease.attempt_id = state_.next_attempt_id++;
    lease.run_id = run.id;
    lease.generation = ++run.generation;
    for (int64_t id : workers) {
      lease.placements.push_back({id, now_ms_ + state_.lease_ttl_ms});
      actions_.workers.insert(id);
    }
    lease.sweep_id = sweep.id;
    lease.first_step = lease.last_step = run.checkpoint_step;
    state_.leases[lease.attempt_id] = lease;
    run.live_attempt = lease.attempt_id;
    run.last_worker = lease.worker_id();
    if (state_.hooks.lease_twice)
      actions_.runs.insert(run.id);
    else
      SetState(state_, run, RunState::kRunning, actions_);
    Occupy(lease);
    free_slots_ -= static_cast<int>(workers.size());
    actions_.opened.push_back(lease);
    actions_.sweeps.insert(sweep.id);
  }

  State& state_;
  int64_t now_ms_;
  Actions& actions_;
  const Rooms empty_;
  Rooms rooms_;
  std::set<int64_t> held_back_;  // workers whose slots a gang waits for
  int free_slots_ = 0;
};

}  // namespace

void GrantLeases(State& state, int64_t now_ms, Actions& actions) {
  Dispatcher dispatcher(state, now_ms, actions);
  dispatcher.CountFree();
  dispatcher.Run();
}

}  // namespace allometry::scheduler
