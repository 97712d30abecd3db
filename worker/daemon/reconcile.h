#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

namespace allometry::worker {

// The comparison of what runs with what should: pure.

// One rank of an attempt: what a worker holds, starts and ends.
struct RankId {
  RankId(int64_t attempt, int64_t rank_of_it = 0) : attempt_id(attempt), rank(rank_of_it) {}  // implicit: most have one
  int64_t attempt_id;
  int64_t rank;
  auto operator<=>(const RankId&) const = default;
};

struct HeldAttempt {
  RankId id = 0;
  int64_t run_id = 0;
  int64_t generation = 0;
};

struct WantedAttempt {
  RankId id = 0;
  int64_t run_id = 0;
  int64_t generation = 0;
  bool stop = false;      // checkpoint and finish as stopped
  bool has_spec = false;  // all that is needed to start it
};

struct Changes {
  std::vector<RankId> take;    // in the wanted order: to hold from now on, and to start when there is room
  std::vector<RankId> refuse;  // new, but to be given back at once as stopped
  std::vector<RankId> stop;    // held, to finish as stopped
  std::vector<RankId> drop;    // held and no longer wanted: stop and forget
};

// `ended`: attempts that this worker has finished or given up; a message that crossed their end must not revive them.
// What is taken counts as held at once, room or not: the coordinator takes an acknowledged lease that is not held for
// lost. `taking_new` false: new ones are refused.
Changes Compare(const std::vector<HeldAttempt>& held, const std::vector<WantedAttempt>& wanted,
                const std::set<RankId>& ended, bool taking_new);

// Which of the waiting ones may start now, oldest first: one a free slot, and none of a run that another attempt is
// still busy with, since they share a directory. `busy_runs`: the attempt that each run is busy with.
std::vector<RankId> Startable(const std::vector<HeldAttempt>& waiting, std::map<int64_t, int64_t> busy_runs,
                              int free_slots);

}  // namespace allometry::worker
