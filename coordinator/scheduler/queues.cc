#include "coordinator/scheduler/queues.h"

#include <algorithm>

namespace allometry::scheduler {
namespace {

int64_t& CountOf(Counts& counts, RunState state) {
  switch (state) {
    case RunState::kPending:
      return counts.pending;
    case RunState::kRunning:
      return counts.running;
    case RunState::kDone:
      return counts.done;
    case RunState::kFailed:
      return counts.failed;
    case RunState::kDiverged:
      break;
  }
  return counts.diverged;
}

void Count(Sweep& sweep, const Run& run, int64_t sign) {
  CountOf(sweep.counts, run.state) += sign;
  if (run.blocked) sweep.counts.blocked += sign;
}

template <typename Change>
void ChangeCounted(State& state, Run& run, Actions& actions, Change change) {
  for (int64_t id : run.sweeps) Count(state.sweeps.at(id), run, -1);
  change();
  for (int64_t id : run.sweeps) {
    Count(state.sweeps.at(id), run, +1);
    actions.sweeps.insert(id);
  }
  actions.runs.insert(run.id);
}

bool BlocksChildren(const Run& run) {
  return run.state == RunState::kFailed || run.state == RunState::kDiverged || run.blocked ||
         (run.state == RunState::kDone && !run.keeps_outputs);
}

void InsertKey(State& state, const Run& run, int64_t sweep_id) {
  Sweep& sweep = state.sweeps.at(sweep_id);
  sweep.ready[run.trainer].insert({sweep.policy->rank(run), run.id});
}

void EraseKey(State& state, const Run& run, int64_t sweep_id) {
  Sweep& sweep = state.sweeps.at(sweep_id);
  sweep.ready[run.trainer].erase({sweep.policy->rank(run), run.id});
}

}  // namespace

bool ParentsReady(const State& state, const Run& run) {
  if (state.hooks.ignore_dependencies) return true;
  return std::ranges::all_of(run.parents, [&](int64_t id) {
    const Run* parent = state.FindRun(id);
    return parent->state == RunState::kDone && parent->keeps_outputs;
  });
}

void SetState(State& state, Run& run, RunState next, Actions& actions) {
  ChangeCounted(state, run, actions, [&] { run.state = next; });
  RefreshBlocked(state, run, actions);
  RefreshQueued(state, run);
  RefreshChildren(state, run, actions);
}

void RefreshBlocked(State& state, Run& run, Actions& actions) {
  const bool blocked = run.state == RunState::kPending && !state.hooks.ignore_dependencies &&
                       std::ranges::any_of(run.parents, [&](int64_t id) { return BlocksChildren(*state.FindRun(id)); });
  if (blocked == run.blocked) return;
  ChangeCounted(state, run, actions, [&] { run.blocked = blocked; });
  RefreshChildren(state, run, actions);
}

void RefreshQueued(State& state, Run& run) {
  const bool queued = run.state == RunState::kPending && !run.blocked && !run.sweeps.empty() &&
                      (run.backoff_until_ms == 0 || state.hooks.ignore_backoff) && ParentsReady(state, run);
  if (queued == run.queued) return;
  for (int64_t id : run.sweeps) queued ? InsertKey(state, run, id) : EraseKey(state, run, id);
  run.queued = queued;
}

void RefreshChildren(State& state, const Run& run, Actions& actions) {
  for (int64_t id : run.children) {
    Run& child = *state.FindRun(id);
    RefreshBlocked(state, child, actions);
    RefreshQueued(state, child);
  }
}

void StartBackoff(State& state, Run& run, int64_t until_ms) {
  EndBackoff(state, run);
  run.backoff_until_ms = until_ms;
  state.backoffs.insert({until_ms, run.id});
}

void EndBackoff(State& state, Run& run) {
  state.backoffs.erase({run.backoff_until_ms, run.id});
  run.backoff_until_ms = 0;
}

void Attach(State& state, Run& run, Sweep& sweep, Actions& actions) {
  if (std::ranges::find(run.sweeps, sweep.id) != run.sweeps.end()) return;
  run.sweeps.push_back(sweep.id);
  Count(sweep, run, +1);
  if (run.queued) InsertKey(state, run, sweep.id);
  RefreshBlocked(state, run, actions);
  RefreshQueued(state, run);
  actions.sweeps.insert(sweep.id);
  actions.runs.insert(run.id);
}

void Detach(State& state, Run& run, Sweep& sweep, Actions& actions) {
  if (std::ranges::find(run.sweeps, sweep.id) == run.sweeps.end()) return;
  if (run.queued) EraseKey(state, run, sweep.id);
  std::erase(run.sweeps, sweep.id);
  if (run.sweeps.empty()) run.queued = false;
  Count(sweep, run, -1);
  actions.sweeps.insert(sweep.id);
  actions.runs.insert(run.id);
}

}  // namespace allometry::scheduler
