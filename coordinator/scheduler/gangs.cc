#include "coordinator/scheduler/gangs.h"

#include <algorithm>

namespace allometry::scheduler {
namespace {

struct Candidate {
  int64_t worker_id = 0;
  int ranks = 0;  // that it can hold
  int slots = 0;  // that it has
};

// Those that can hold at least one rank, by kind. A worker with several kinds of devices does not let one choose among
// them, so it is alone and holds single ranks only.
std::map<std::string, std::vector<Candidate>> CandidatesByKind(const Rooms& rooms, const Run& run, int ranks,
                                                               const std::set<int64_t>& held_back) {
  std::map<std::string, std::vector<Candidate>> kinds;
  for (const auto& [id, room] : rooms) {
    if (held_back.contains(id) || (ranks > 1 && room.worker->kind.empty())) continue;
    if (const int fit = RanksThatFit(room, run, ranks); fit > 0)
      kinds[room.worker->kind].push_back({id, fit, room.slots});
  }
  return kinds;
}

// One worker that holds all of them: the run's last one, which may have its newest checkpoint, else the one whose room
// they fill best, so that large rooms stay for large gangs.
const Candidate* BestAlone(const std::vector<Candidate>& candidates, const Run& run, int ranks) {
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates) {
    if (candidate.ranks < ranks) continue;
    if (candidate.worker_id == run.last_worker) return &candidate;
    if (best == nullptr || candidate.slots < best->slots) best = &candidate;
  }
  return best;
}

// The largest rooms until all have a place; the last worker's ranks first, since rank 0 starts from the checkpoint.
std::vector<int64_t> Spread(std::vector<Candidate> candidates, const Run& run, int ranks) {
  std::ranges::stable_sort(candidates, std::greater(), &Candidate::ranks);
  std::vector<Candidate> chosen;
  for (const Candidate& candidate : candidates) {
    if (ranks == 0) break;
    chosen.push_back({candidate.worker_id, std::min(candidate.ranks, ranks), candidate.slots});
    ranks -= chosen.back().ranks;
  }
  if (ranks > 0) return {};
  std::ranges::stable_sort(chosen, std::greater(), [&](const Candidate& c) { return c.worker_id == run.last_worker; });
  std::vector<int64_t> workers;
  for (const Candidate& candidate : chosen) workers.insert(workers.end(), candidate.ranks, candidate.worker_id);
  return workers;
}

size_t WorkersIn(const std::vector<int64_t>& placements) {
  return std::set<int64_t>(placements.begin(), placements.end()).size();
}

}  // namespace

int64_t MemoryOfRank(const Run& run, int ranks) {
  if (ranks <= 1) return run.memory_bytes;
  const int64_t divided = run.memory_bytes - std::min(run.replicated_bytes, run.memory_bytes);
  return run.memory_bytes - divided + (divided + ranks - 1) / ranks;
}

Room EmptyRoom(const Worker& worker) {
  Room room{&worker, worker.slots, worker.memory_bytes, {}};
  for (const Device& device : worker.devices) room.parts.push_back(device.fault.empty() ? kPartsOfDevice : 0);
  if (!room.parts.empty()) room.slots = static_cast<int>(std::ranges::count(room.parts, kPartsOfDevice));
  return room;
}

Rooms EmptyRooms(const State& state) {
  Rooms rooms;
  for (const auto& [id, worker] : state.workers)
    if (worker.connected && !worker.draining) rooms[id] = EmptyRoom(worker);
  return rooms;
}

void Occupy(Room& room, int device, int parts, int64_t memory_bytes) {
  if (room.parts.empty()) {
    room.slots--;
    room.memory_bytes -= memory_bytes;
    return;
  }
  // A lease of before devices had numbers is on one of them.
  if (device < 0) device = static_cast<int>(std::ranges::find(room.parts, kPartsOfDevice) - room.parts.begin());
  if (device >= static_cast<int>(room.parts.size())) return;
  room.parts[static_cast<size_t>(device)] -= parts;
  room.slots = static_cast<int>(std::ranges::count(room.parts, kPartsOfDevice));
}

double BytesOnGpu(const Run& run, int ranks) {
  return static_cast<double>(run.gpu_whole_bytes) + static_cast<double>(run.gpu_divided_bytes) / ranks;
}

double UsableOfGpu(double room_bytes) {
  return std::max(kUsableShareOfGpu * room_bytes,
                  kMostUsableShareOfGpu * room_bytes - static_cast<double>(kReservedBytesOfGpu));
}

double GpuFor(double bytes) {
  return std::min(bytes / kUsableShareOfGpu,
                  (bytes + static_cast<double>(kReservedBytesOfGpu)) / kMostUsableShareOfGpu);
}

bool FitsDevice(const Run& run, int ranks, const Device& device, int parts) {
  const double bytes = BytesOnGpu(run, ranks);
  if (device.memory_bytes == 0 || bytes <= 0) return true;
  double room = static_cast<double>(device.memory_bytes) * parts / kPartsOfDevice;
  if (parts < kPartsOfDevice) room -= static_cast<double>(kContextBytesOfGpu);
  return bytes <= UsableOfGpu(room);
}

int PartsOn(const Run& run, const Device& device) {
  for (int parts = kPartsOfDevice / std::max<int>(1, run.slots_per_gpu); parts <= kPartsOfDevice; parts *= 2)
    if (FitsDevice(run, 1, device, parts)) return PartsAfterOutOfMemory(run, parts);
  return 0;
}

int PartsAfterOutOfMemory(const Run& run, int parts) {
  return std::min(parts << std::min<int>(run.out_of_memory, kMaxOutOfMemory), kPartsOfDevice);
}

Spot SpotFor(int64_t worker_id, const Room& room, const Run& run) {
  Spot best{worker_id, -1, 0};
  if (!room.worker->trainers.contains(run.trainer)) return best;
  if (room.parts.empty()) return {worker_id, -1, RanksThatFit(room, run, 1) > 0 ? kPartsOfDevice : 0};
  for (size_t i = 0; i < room.parts.size(); ++i) {
    const int parts = PartsOn(run, room.worker->devices[i]);
    if (parts == 0 || room.parts[i] < parts) continue;
    if (best.device < 0 || room.parts[i] < room.parts[static_cast<size_t>(best.device)])
      best = {worker_id, static_cast<int>(i), parts};
  }
  return best;
}

int RanksThatFit(const Room& room, const Run& run, int ranks) {
  if (!room.worker->trainers.contains(run.trainer)) return 0;
  if (!room.parts.empty()) {
    int fit = 0;
    for (size_t i = 0; i < room.parts.size(); ++i)
      fit += room.parts[i] == kPartsOfDevice && FitsDevice(run, ranks, room.worker->devices[i]);
    return std::min(fit, ranks);
  }
  if (room.slots <= 0) return 0;
  const int64_t each = MemoryOfRank(run, ranks);
  if (room.worker->memory_bytes == 0) return std::min(room.slots, ranks);
  if (each <= 0) return room.memory_bytes >= 0 ? std::min(room.slots, ranks) : 0;
  return static_cast<int>(std::clamp<int64_t>(room.memory_bytes / each, 0, std::min(room.slots, ranks)));
}

std::vector<int64_t> Place(const Rooms& rooms, const Run& run, int ranks, const std::set<int64_t>& held_back) {
  std::vector<int64_t> best;
  for (const auto& [kind, candidates] : CandidatesByKind(rooms, run, ranks, held_back)) {
    std::vector<int64_t> placements;
    if (const Candidate* alone = BestAlone(candidates, run, ranks))
      placements.assign(static_cast<size_t>(ranks), alone->worker_id);
    else
      placements = Spread(candidates, run, ranks);
    if (placements.empty()) continue;
    const bool last = placements.front() == run.last_worker;
    if (best.empty() || WorkersIn(placements) < WorkersIn(best) || (last && WorkersIn(placements) == WorkersIn(best)))
      best = std::move(placements);
  }
  return best;
}

Offer LargestOffer(const Rooms& rooms, const Run& run, int ranks) {
  Offer largest;
  for (const auto& [kind, candidates] : CandidatesByKind(rooms, run, ranks, {})) {
    int64_t sum = 0;
    for (const Candidate& candidate : candidates) sum += candidate.ranks;
    if (sum > largest.ranks) largest = {kind, static_cast<int>(std::min<int64_t>(sum, kMaxDevices))};
  }
  return largest;
}

int RanksFor(const Rooms& empty, const Run& run) {
  const int first = run.devices == 0 ? 1 : run.devices;
  const int last = run.devices == 0 ? std::max<int>(1, run.most_devices) : run.devices;
  for (int ranks = first; ranks <= last; ranks *= 2)
    if (LargestOffer(empty, run, ranks).ranks >= ranks) return ranks;
  return 0;
}

}  // namespace allometry::scheduler
