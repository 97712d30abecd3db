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

// What a worker has left, or has in all.
struct Room {
  const Worker* worker = nullptr;
  int slots = 0;
  int64_t memory_bytes = 0;  // only where the worker's is known
};
using Rooms = std::map<int64_t, Room>;  // by worker id

// Every worker that may get leases, with nothing on it.
Rooms EmptyRooms(const State& state);
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
