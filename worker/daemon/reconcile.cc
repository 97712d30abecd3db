#include "worker/daemon/reconcile.h"

namespace allometry::worker {

Changes Compare(const std::vector<HeldAttempt>& held, const std::vector<WantedAttempt>& wanted,
                const std::set<RankId>& ended, bool taking_new) {
  Changes changes;
  std::map<RankId, int64_t> held_generations;
  std::set<RankId> kept;
  for (const auto& attempt : held) held_generations[attempt.id] = attempt.generation;
  for (const auto& attempt : wanted) {
    const RankId id = attempt.id;
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
    if (!kept.count(attempt.id)) changes.drop.push_back(attempt.id);
  }
  return changes;
}

std::vector<RankId> Startable(const std::vector<HeldAttempt>& waiting, std::map<int64_t, int64_t> busy_runs,
                              int free_slots) {
  std::vector<RankId> start;
  for (const auto& attempt : waiting) {
    if (free_slots <= 0) break;
    const auto [busy, free] = busy_runs.emplace(attempt.run_id, attempt.id.attempt_id);
    if (!free && busy->second != attempt.id.attempt_id) continue;
    start.push_back(attempt.id);
    --free_slots;
  }
  return start;
}

}  // namespace allometry::worker
