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
  std::vector<int64_t> start;   // attempt ids, in the wanted order
  std::vector<int64_t> refuse;  // new, but to be given back at once as stopped
  std::vector<int64_t> stop;    // held, to finish as stopped
  std::vector<int64_t> drop;    // held and no longer wanted: stop and forget
};

// `ended`: attempts that this worker has finished or given up; a message that crossed their end must not revive them. An
// attempt of a run that another held attempt still works on waits (they share a directory), as does one without a free
// slot or without its spec: the next message names it again. `taking_new` false: new ones are refused.
Changes Compare(const std::vector<HeldAttempt>& held, const std::vector<WantedAttempt>& wanted,
                const std::set<int64_t>& ended, int free_slots, bool taking_new);

}  // namespace allometry::worker
