#pragma once

#include "coordinator/scheduler/scheduler.h"

namespace allometry::scheduler {

// Grants leases: sweeps by priority, then age; within a sweep by its policy; a run goes to the worker that had it last,
// else to the one with most free slots; a run that leaves room on a GPU to the fullest one that still has room for it.
// A run that finds no worker or no budget does not hold up those behind it.
void GrantLeases(State& state, int64_t now_ms, Actions& actions);

}  // namespace allometry::scheduler
