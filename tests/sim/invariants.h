#pragma once

#include <map>
#include <set>
#include <string>

#include "coordinator/core/core.h"
#include "tests/sim/world.h"

namespace allometry::sim {

inline constexpr int64_t kLeaseTtlMs = 60'000;  // shorter than shipped, so that a seed sees more of them end

// What must hold after every event, seen from outside: the state that Core shows and the rows that its store holds,
// compared with what was seen and acknowledged before.
class Invariants {
 public:
  explicit Invariants(World& world) : world_(world) {}

  // `settled`: the batch was committed and granted what leases it could (not so when it failed and the state was read
  // back).
  void AfterCommit(coordinator::Core& core, bool settled);
  // Accounts and limits over all attempts.
  void CheckAll(coordinator::Core& core);
  // An accepting answer has left the coordinator.
  void FinishAcknowledged(const v1::FinishRequest& request);
  // Whether nothing is left to run: every run is terminal, blocked, out of budget, or waits for such a one.
  bool AllAtRest(coordinator::Core& core) const;
  std::string Unrest(coordinator::Core& core) const;

 private:
  struct Seen {
    uint32_t generation = 0;
    scheduler::RunState state = scheduler::RunState::kPending;
    int64_t counted_from = 0;  // generation at the last retry by a user: limits begin anew
    int crashes = 0;
    int64_t crashed_ms = 0;
  };

  void CheckLeases(const scheduler::State& state);
  void CheckPlacements(const scheduler::State& state);
  void CheckDevices(const scheduler::State& state);
  static int FreeDevices(const scheduler::State& state, const scheduler::Worker& worker);
  void CheckRun(coordinator::Core& core, const scheduler::Run& run, bool settled);
  void CheckAttempts(coordinator::Core& core, const scheduler::Run& run, Seen& seen);
  void CheckNewLease(const scheduler::State& state, const scheduler::Run& run, const Seen& seen);
  void CheckWaiting(const scheduler::State& state, const scheduler::Run& run, bool settled);
  void CheckBudgets(coordinator::Core& core);
  void CheckAcknowledged(coordinator::Core& core);

  World& world_;
  std::map<int64_t, Seen> runs_;
  std::map<int64_t, int64_t> accepted_;  // run -> attempt
  int64_t commits_ = 0;
};

}  // namespace allometry::sim
