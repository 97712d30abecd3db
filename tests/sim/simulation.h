#pragma once

#include <cstdint>
#include <string>

#include "coordinator/scheduler/state.h"

namespace allometry::sim {

struct Outcome {
  std::string violation;  // empty: all invariants held
  int64_t done = 0;       // runs
  int64_t failed = 0;
  int64_t attempts = 0;
  int64_t chunks = 0;  // acknowledged metric chunks
};

// Two sweeps, three workers, ten minutes of faults and then as long as it takes to come to rest; the invariants are
// checked after every commit.
Outcome Simulate(uint64_t seed, const scheduler::TestHooks& hooks);

}  // namespace allometry::sim
