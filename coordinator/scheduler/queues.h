#pragma once

#include "coordinator/scheduler/scheduler.h"

// Bookkeeping that several steps share: states with their counts, blocked marks, ready queues. Each keeps the derived
// fields of State true for the run it is given.
namespace allometry::scheduler {

void SetState(State& state, Run& run, RunState next, Actions& actions);
// Recomputes the run's own mark and, where it changed, its descendants'.
void RefreshBlocked(State& state, Run& run, Actions& actions);
// Into or out of the ready queues, by whether it may run now but for a slot, the budget and its sweeps' state.
void RefreshQueued(State& state, Run& run);
// Its parents changed state: both of the above for all children.
void RefreshChildren(State& state, const Run& run, Actions& actions);
void StartBackoff(State& state, Run& run, int64_t until_ms);
void EndBackoff(State& state, Run& run);
void Attach(State& state, Run& run, Sweep& sweep, Actions& actions);
void Detach(State& state, Run& run, Sweep& sweep, Actions& actions);
bool ParentsReady(const State& state, const Run& run);

}  // namespace allometry::scheduler
