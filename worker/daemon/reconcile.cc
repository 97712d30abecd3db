#include "worker/daemon/reconcile.h"

#include <map>

namespace allometry::worker {

Changes Compare(const std::vector<HeldAttempt>& held, const std::vector<WantedAttempt>& wanted,
                const std::set<int64_t>& ended, bool taking_new) {
  Changes changes;
  std::map<int64_t, int64_t> held_generations;
  std::set<int64_t> kept;
  for (const auto& attempt : held) held_generations[attempt.attempt_id] = attempt.generation;
  for (const auto& attempt : wanted) {
    const int64_t id = attempt.attempt_id;
    auto it = held_generations.find(id);
    if (it != held_generations.end()) {
      if (it->second != attempt.generation) continue;  // another lease: ours is gone
      kept.insert(id);
      if (attempt.stop) changes.stop.push_back(id);
    } else if (ended.count(id)) {
      continue;
    } else if (attempt.stop || !taking_new) {
      changes.refuse.push_back(id);
    } else if (attempt.has_spec) {
      changes.take.push_back(id);
    }
  }
  for (const auto& attempt : held) {
    if (!kept.count(attempt.attempt_id)) changes.drop.push_back(attempt.attempt_id);
  }
  return changes;
}

std::vector<int64_t> Startable(const std::vector<HeldAttempt>& waiting, std::set<int64_t> busy_runs, int free_slots) {
  std::vector<int64_t> start;
  for (const auto& attempt : waiting) {
    if (free_slots <= 0) break;
    if (!busy_runs.insert(attempt.run_id).second) continue;
    start.push_back(attempt.attempt_id);
    --free_slots;
  }
  return start;
}

}  // namespace allometry::worker
