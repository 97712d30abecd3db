#pragma once

#include "coordinator/scheduler/state.h"

namespace allometry::scheduler {

struct Ending {
  Outcome outcome = Outcome::kCrash;
  bool progressed = false;       // at least one step since the attempt's start
  bool stop_requested = false;   // by the coordinator (pause, drain): counts against nothing
  int64_t micro_batch = 0;       // sequences at once that memory did not hold, at most; 0 = not known
  bool had_whole_device = true;  // not a part that its next try may have more of
  bool builtin = true;           // the run's trainer is the built-in one, of whose CUDA the workers' probe speaks
};

struct NextTry {
  RunState state = RunState::kPending;
  int64_t backoff_ms = 0;
};

// What follows an attempt that ended without a result, by its class (docs/trainer-contract.md). Counts into the run and
// halves its micro-batch; by the same count PartsOn gives it more of a device.
NextTry DecideRetry(Run& run, const Ending& ending, const TestHooks& hooks = {});

// 10, 20, 40 s before the tries after the 1st, 2nd, 3rd crash.
int64_t BackoffMs(int crashes);

}  // namespace allometry::scheduler
