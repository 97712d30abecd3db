#pragma once

#include <cstdint>
#include <set>
#include <vector>

namespace allometry::worker {

// The comparison of what runs with what should: pure.

struct HeldAttempt {
  int64_t attempt_id = 0;
  int64_t run_id = 0;
  int64_t generation = 0;
};

struct WantedAttempt {
  int64_t attempt_id = 0;
  int64_t run_id = 0;
  int64_t generation = 0;
  bool stop = false;      // checkpoint and finish as stopped
  bool has_spec = false;  // all that is needed to start it
};

struct Changes {
  std::vector<int64_t> take;  // attempt ids, in the wanted order: to hold from now on, and to start when there is room
  std::vector<int64_t> refuse;  // new, but to be given back at once as stopped
  std::vector<int64_t> stop;    // held, to finish as stopped
  std::vector<int64_t> drop;    // held and no longer wanted: stop and forget
};

// `ended`: attempts that this worker has finished or given up; a message that crossed their end must not revive them.
// What is taken counts as held at once, room or not: the coordinator takes an acknowledged lease that is not held for
// lost. `taking_new` false: new ones are refused.
Changes Compare(const std::vector<HeldAttempt>& held, const std::vector<WantedAttempt>& wanted,
                const std::set<int64_t>& ended, bool taking_new);

// Which of the waiting attempts may start now, oldest first: one a free slot, and none of a run that another attempt is
// still busy with, since they share a directory.
std::vector<int64_t> Startable(const std::vector<HeldAttempt>& waiting, std::set<int64_t> busy_runs, int free_slots);

}  // namespace allometry::worker
