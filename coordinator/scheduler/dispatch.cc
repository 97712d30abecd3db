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
      if (open) GrantFrom(sweep);
    }
  }

 private:
  void Occupy(const Lease& lease) {
    const int64_t memory_bytes = MemoryOfRank(*state_.FindRun(lease.run_id), static_cast<int>(lease.placements.size()));
    for (const Placement& placement : lease.placements)
      if (const auto room = rooms_.find(placement.worker_id); room != rooms_.end())
        scheduler::Occupy(room->second, placement.device, placement.parts, memory_bytes);
  }

  static bool IsOpen(const Room& room) {
    return room.slots > 0 || std::ranges::any_of(room.parts, [](int free) { return free > 0; });
  }

  bool AnyRoomFor(uint16_t trainer) const {
    return std::ranges::any_of(rooms_, [&](const auto& r) {
      return IsOpen(r.second) && r.second.worker->trainers.contains(trainer) && !held_back_.contains(r.first);
    });
  }

  void GrantFrom(Sweep& sweep) {
    double left = UnpromisedFlops(state_, sweep);
    double kept = 0;  // of the budget, for gangs that slots are kept for
    for (auto& [trainer, queue] : sweep.ready)
      for (auto key = queue.begin(); key != queue.end() && AnyRoomFor(trainer);) {
        scheduler::Run& run = *state_.FindRun((key++)->run_id);
        if (RestFlops(run) > left - kept) continue;
        const std::vector<Spot> spots = Choose(run, &kept);
        if (spots.empty()) continue;
        Grant(sweep, run, spots);
        left = UnpromisedFlops(state_, sweep);
      }
  }

  // The places of the run's ranks; none: it waits. What a run that room is kept for will cost is added to `kept`.
  std::vector<Spot> Choose(const scheduler::Run& run, double* kept) {
    const int ranks = run.devices == 1 ? 1 : RanksFor(empty_, run);
    if (ranks == 0) return {};
    if (ranks == 1) {
      const Spot spot = ChooseOne(run);
      if (spot.worker_id != 0) return {spot};
      if (HoldBackDevice(run)) *kept += RestFlops(run);
      return {};
    }
    const std::vector<int64_t> workers = Place(rooms_, run, ranks, held_back_);
    if (!workers.empty()) return WholeDevices(run, workers);
    if (state_.hooks.part_of_a_gang)
      if (const Spot spot = ChooseOne(run); spot.worker_id != 0) return {spot};
    HoldBack(run, ranks);
    *kept += RestFlops(run);
    return {};
  }

  // The devices of a gang's ranks, by rank, where the workers have any.
  std::vector<Spot> WholeDevices(const scheduler::Run& run, const std::vector<int64_t>& workers) const {
    const int ranks = static_cast<int>(workers.size());
    std::vector<Spot> spots;
    std::map<int64_t, size_t> next;  // device to look at, by worker
    for (int64_t id : workers) {
      const Room& room = rooms_.at(id);
      size_t& device = next[id];
      while (device < room.parts.size() &&
             (room.parts[device] < kPartsOfDevice || !FitsDevice(run, ranks, room.worker->devices[device])))
        ++device;
      spots.push_back({id, room.parts.empty() ? -1 : static_cast<int>(device++)});
    }
    return spots;
  }

  // Slots that become free are kept for the first gang that waits for devices of their kind, or runs behind it that
  // need one slot each would take them for ever. It is enough to keep a kind, and the same one each time: a gang may be
  // spread over all workers of it, and every slot of it that ends brings it nearer.
  void HoldBack(const scheduler::Run& run, int ranks) {
    const Offer offer = LargestOffer(empty_, run, ranks);
    for (const auto& [id, room] : empty_)
      if (room.worker->kind == offer.kind && RanksThatFit(room, run, ranks) > 0) held_back_.insert(id);
  }

  // Of a device that others share, parts become free one by one, and runs behind this one that need fewer would take
  // them for ever. The device that has most of them is kept; whether it is.
  bool HoldBackDevice(const scheduler::Run& run) {
    int* most = nullptr;
    for (auto& [id, room] : rooms_) {
      if (held_back_.contains(id) || !room.worker->trainers.contains(run.trainer)) continue;
      for (size_t i = 0; i < room.parts.size(); ++i)
        if (room.parts[i] > (most == nullptr ? 0 : *most) && PartsOn(run, room.worker->devices[i]) > 0)
          most = &room.parts[i];
    }
    if (most != nullptr) *most = 0;
    return most != nullptr;
  }

  // Worker 0: none can take it now.
  Spot ChooseOne(const scheduler::Run& run) const {
    if (const auto last = rooms_.find(run.last_worker); last != rooms_.end())
      if (const Spot spot = SpotIn(*last, run); spot.parts > 0) return spot;
    Spot best{0, -1, 0};
    std::pair<int, int> best_rank;
    for (const auto& entry : rooms_) {
      const Spot spot = SpotIn(entry, run);
      if (spot.parts == 0) continue;
      // A shared device with the least room first, so that whole ones stay whole, then the worker with most free slots.
      const int left =
          spot.parts == kPartsOfDevice ? kPartsOfDevice : entry.second.parts[static_cast<size_t>(spot.device)];
      const std::pair<int, int> rank{left, -entry.second.slots};
      if (best.worker_id == 0 || rank < best_rank) best = spot, best_rank = rank;
    }
    return best;
  }

  Spot SpotIn(const std::pair<const int64_t, Room>& entry, const scheduler::Run& run) const {
    if (held_back_.contains(entry.first)) return {entry.first, -1, 0};
    if (!state_.hooks.overfill_devices || entry.second.parts.empty()) return SpotFor(entry.first, entry.second, run);
    return SpotFor(entry.first, empty_.at(entry.first), run);
  }

  void Grant(Sweep& sweep, scheduler::Run& run, const std::vector<Spot>& spots) {
    Lease lease;
    lease.attempt_id = state_.next_attempt_id++;
    lease.run_id = run.id;
    lease.generation = ++run.generation;
    for (const Spot& spot : spots) {
      lease.placements.push_back({spot.worker_id, spot.device, spot.parts, now_ms_ + state_.lease_ttl_ms});
      actions_.workers.insert(spot.worker_id);
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
    actions_.opened.push_back(lease);
    actions_.sweeps.insert(sweep.id);
  }

  State& state_;
  int64_t now_ms_;
  Actions& actions_;
  const Rooms empty_;
  Rooms rooms_;
  std::set<int64_t> held_back_;  // workers whose slots a gang waits for
};

}  // namespace

void GrantLeases(State& state, int64_t now_ms, Actions& actions) { Dispatcher(state, now_ms, actions).Run(); }

}  // namespace allometry::scheduler
