#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "coordinator/scheduler/state.h"

// Gangs: how many ranks a run gets, and which workers could hold them. Pure, like the rest.
namespace allometry::scheduler {

// Predicted peak of one of so many ranks: weights are whole in each, gradients and the optimiser's state are sharded,
// activations go with the rank's share of the batch. 0 = not known.
int64_t MemoryOfRank(const Run& run, int ranks);

// How much of a GPU's memory a run's predicted bytes may fill: CUDA's context and the allocator's reserves, which the
// prediction leaves out, have the rest.
inline constexpr double kUsableShareOfGpu = 0.5;
// Of a large GPU, or a large part of one, more than that: all but a tenth and these bytes. Small models were measured
// to take up to 5 GB more than predicted (bench/results/memory_gpu.json). The trainer goes by the same numbers
// (worker/trainer/engine/memory_plan.cc).
inline constexpr double kMostUsableShareOfGpu = 0.9;
inline constexpr int64_t kReservedBytesOfGpu = 8'000'000'000;
double UsableOfGpu(double room_bytes);
// Its inverse: the memory of a GPU that so many predicted bytes need.
double GpuFor(double bytes);
// Bytes of each process that CUDA's context takes, about. The trainer leaves as much out of a part of a GPU
// (kContextBytes in worker/trainer/engine/device.cc), so of a small part there is little left.
inline constexpr int64_t kContextBytesOfGpu = 600'000'000;

// What a worker has left, or has in all.
struct Room {
  const Worker* worker = nullptr;
  int slots = 0;             // for one rank each; of a worker with devices, those of which every part is free
  int64_t memory_bytes = 0;  // of a machine without devices, only where it is known
  std::vector<int> parts;    // that are free, of each device; none where it is out of service
};
using Rooms = std::map<int64_t, Room>;  // by worker id

// A place for one rank.
struct Spot {
  int64_t worker_id = 0;
  int device = -1;  // as Placement::device
  int parts = kPartsOfDevice;
};

Room EmptyRoom(const Worker& worker);
// Every worker that may get leases, with nothing on it.
Rooms EmptyRooms(const State& state);
// Takes a rank's place out of the room. `memory_bytes`: MemoryOfRank.
void Occupy(Room& room, int device, int parts, int64_t memory_bytes);
// Least bytes that a GPU must hold of one of so many ranks of the run, and be filled by; 0 = not known.
double BytesOnGpu(const Run& run, int ranks);
// Whether so many parts of a GPU, 1 to 16, hold one of so many ranks of the run, as far as either is known.
bool FitsDevice(const Run& run, int ranks, const Device& device, int parts = kPartsOfDevice);
// The parts of a device that the run takes when it is alone in its attempt: what it asks for, or twice, four times, …
// that, where it needs so much of the memory, and PartsAfterOutOfMemory of that. 0: the device is too small.
int PartsOn(const Run& run, const Device& device);
// Twice as many for each time that the run ran out of memory.
int PartsAfterOutOfMemory(const Run& run, int parts);
// The device of the room with the fewest free parts that are enough for the run, so that whole ones stay whole, and how
// many it takes; of a room without devices a slot. `parts` 0: nothing fits.
Spot SpotFor(int64_t worker_id, const Room& room, const Run& run);
// How many of the run's ranks fit there, of an attempt of `ranks` in all.
int RanksThatFit(const Room& room, const Run& run, int ranks);

// The workers of each rank, if all of them fit: one kind of devices, the fewest workers, the run's last one first among
// them. Empty: they do not fit. `held_back`: workers that others wait for.
std::vector<int64_t> Place(const Rooms& rooms, const Run& run, int ranks, const std::set<int64_t>& held_back);

// How many ranks the run needs: what it asks for or, where that is left open, the fewest that the workers could hold if
// nothing else ran. 0: they cannot.
int RanksFor(const Rooms& empty, const Run& run);

// The kind of devices of which a run of so many ranks could have the most, and how many.
struct Offer {
  std::string kind;
  int ranks = 0;
};
Offer LargestOffer(const Rooms& rooms, const Run& run, int ranks);

}  // namespace allometry::scheduler
