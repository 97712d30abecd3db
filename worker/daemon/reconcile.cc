#include "worker/daemon/reconcile.h"

#include <map>

namespace allometry::worker {

Changes Compare(const std::vector<HeldAttempt>& held, const std::vector<WantedAttempt>& wanted,
                const std::set<int64_t>& ended, int free_slots, bool taking_new) {
  Changes changes;
  std::map<int64_t, const HeldAttempt*> held_by_id;
  std::set<int64_t> busy_runs, kept;
  for (const auto& attempt : held) {
    held_by_id[attempt.attempt_id] = &attempt;
    busy_runs.insert(attempt.run_id);
  }
  for (const auto& attempt : wanted) {
    auto it = held_by_id.find(attempt.attempt_id);
    if (it != held_by_id.end()) {
      if (it->second->generation != attempt.generation) continue;  // another lease: ours is gone
      kept.insert(attempt.attempt_id);
      if (attempt.stop) changes.stop.push_back(attempt.attempt_id);
      continue;
    }
    if (ended.count(attempt.attempt_id) || busy_runs.count(attempt.run_id)) continue;
    if (attempt.stop || !taking_new) {
      changes.refuse.push_back(attempt.attempt_id);
      busy_runs.insert(attempt.run_id);
    } else if (attempt.has_spec && free_slots > 0) {
      --free_slots;
      changes.start.push_back(attempt.attempt_id);
      busy_runs.insert(attempt.run_id);
    }
  }
  for (const auto& attempt : held) {
    if (!kept.count(attempt.attempt_id)) changes.drop.push_back(attempt.attempt_id);
  }
  return changes;
}

}  // namespace allometry::worker
