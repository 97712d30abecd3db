#include "coordinator/scheduler/scheduler.h"

#include <algorithm>

#include "coordinator/scheduler/dispatch.h"
#include "coordinator/scheduler/queues.h"
#include "coordinator/scheduler/retry.h"

namespace allometry::scheduler {
namespace {

// Applies one event; a fresh one per Step.
class Stepper {
 public:
  Stepper(State& state, int64_t now_ms, Actions& actions) : state_(state), now_ms_(now_ms), actions_(actions) {}

  void operator()(const AddSweep& e) {
    state_.sweeps[e.sweep.id] = e.sweep;
    state_.sweep_order.insert({-e.sweep.priority, e.sweep.id});
    actions_.sweeps.insert(e.sweep.id);
  }

  void operator()(const AddRun& e) {
    state_.runs.push_back(e.run);
    for (int64_t parent : e.run.parents) state_.FindRun(parent)->children.push_back(e.run.id);
    RefreshBlocked(state_, state_.runs.back(), actions_);
  }

  void operator()(const AttachCells& e) {
    for (int64_t id : e.runs) Attach(state_, *state_.FindRun(id), state_.sweeps.at(e.sweep_id), actions_);
    MarkCancelled();
  }

  void operator()(const DetachCells& e) {
    for (int64_t id : e.runs) Detach(state_, *state_.FindRun(id), state_.sweeps.at(e.sweep_id), actions_);
    MarkCancelled();
  }

  void operator()(const ChangeSweep& e) {
    state_.sweeps.at(e.sweep_id).state = e.state;
    actions_.sweeps.insert(e.sweep_id);
    if (e.kill_running) StopPaused();
    MarkCancelled();
  }

  void operator()(const ConfigureSweep& e) {
    Sweep& sweep = state_.sweeps.at(e.sweep_id);
    state_.sweep_order.erase({-sweep.priority, sweep.id});
    sweep.priority = e.priority;
    sweep.budget_flops = e.budget_flops;
    state_.sweep_order.insert({-sweep.priority, sweep.id});
    ChangePolicy(sweep, e.policy);
    actions_.sweeps.insert(e.sweep_id);
  }

  void operator()(const RetryRuns& e) {
    for (int64_t id : e.runs) Retry(*state_.FindRun(id));
  }

  void operator()(const WorkerJoined& e) {
    state_.workers[e.worker.id] = e.worker;
    actions_.workers.insert(e.worker.id);
  }

  void operator()(const WorkerDisconnected& e) {
    auto worker = state_.workers.find(e.worker_id);
    if (worker == state_.workers.end()) return;
    worker->second.connected = false;
    actions_.workers.insert(e.worker_id);
  }

  void operator()(const WorkerGone& e) {
    CloseWhere("the worker's process ended", [&](const Lease& lease) { return lease.worker_id == e.worker_id; });
    state_.workers.erase(e.worker_id);
    actions_.workers.insert(e.worker_id);
  }

  void operator()(const DrainWorker& e) {
    auto worker = state_.workers.find(e.worker_id);
    if (worker == state_.workers.end()) return;
    worker->second.draining = true;
    actions_.workers.insert(e.worker_id);
    if (e.now) StopWhere([&](const Lease& lease) { return lease.worker_id == e.worker_id; });
  }

  void operator()(const WorkerSynced& e) {
    auto found = state_.workers.find(e.worker_id);
    if (found == state_.workers.end()) return;
    Worker& worker = found->second;
    worker.last_heard_ms = now_ms_;
    if (!worker.connected || (e.draining && !worker.draining)) actions_.workers.insert(worker.id);
    worker.connected = !e.leaving;
    worker.draining |= e.draining;
    std::set<int64_t> held;
    for (const HeldLease& report : e.held)
      if (Renew(worker, report)) held.insert(report.attempt_id);
    // What the worker knows of and no longer holds will not come back.
    CloseWhere("the worker no longer holds it", [&](const Lease& lease) {
      const bool knows = e.leaving || (lease.ordered_in != 0 && e.acknowledged >= lease.ordered_in);
      return lease.worker_id == worker.id && knows && !held.contains(lease.attempt_id);
    });
  }

  void operator()(const AttemptFinished& e) {
    const Lease* current = CurrentLease(state_, e.run_id, e.attempt_id, e.generation);
    if (current == nullptr) return;
    Lease lease = *current;
    Run& run = *state_.FindRun(lease.run_id);
    const bool done = e.outcome == Outcome::kDone;
    if (e.resumed_step && !lease.first_step_known) StartAt(lease, run, *e.resumed_step);
    Charge(lease, run, done ? run.steps : e.last_step);
    actions_.cancelled = lease.cancelled && done;
    actions_.accepted = !actions_.cancelled;
    if (done && actions_.accepted) run.keeps_outputs = e.keeps_outputs;
    Close(lease, lease.cancelled ? Outcome::kCancelled : e.outcome, e.message, e.batch_sequences);
  }

  void operator()(const CheckpointReported& e) {
    const Lease* lease = CurrentLease(state_, e.run_id, e.attempt_id, e.generation);
    if (lease == nullptr) return;
    Run& run = *state_.FindRun(lease->run_id);
    actions_.accepted = true;
    if (e.step <= run.checkpoint_step) return;
    run.checkpoint_step = run.steps > 0 ? std::min(e.step, run.steps) : e.step;
    actions_.runs.insert(run.id);
  }

  void operator()(const Tick&) {
    if (!state_.hooks.never_expire)
      CloseWhere("its lease ran out", [&](const Lease& lease) { return lease.expires_ms <= now_ms_; });
    while (!state_.backoffs.empty() && state_.backoffs.begin()->first <= now_ms_) {
      Run& run = *state_.FindRun(state_.backoffs.begin()->second);
      EndBackoff(state_, run);
      RefreshQueued(state_, run);
    }
    for (auto& [id, worker] : state_.workers)
      if (worker.connected && worker.last_heard_ms + state_.lease_ttl_ms <= now_ms_) {
        worker.connected = false;
        actions_.workers.insert(id);
      }
  }

  void operator()(const Dispatch&) { GrantLeases(state_, now_ms_, actions_); }

 private:
  bool Renew(const Worker& worker, const HeldLease& report) {
    auto found = state_.leases.find(report.attempt_id);
    if (found == state_.leases.end()) return false;
    Lease& lease = found->second;
    if (lease.worker_id != worker.id || lease.generation != report.generation) return false;
    lease.seen = true;
    lease.expires_ms = now_ms_ + state_.lease_ttl_ms;
    lease.loss = report.loss;
    lease.tokens_per_second = report.tokens_per_second;
    Run& run = *state_.FindRun(lease.run_id);
    if (report.started && !lease.first_step_known) StartAt(lease, run, report.resumed_step);
    Charge(lease, run, report.step);
    return true;
  }

  void StartAt(Lease& lease, const Run& run, int64_t step) {
    lease.first_step_known = true;
    // Steps that were reported before the start are charged already.
    if (lease.last_step != lease.first_step) return;
    lease.first_step = lease.last_step = std::clamp<int64_t>(step, 0, std::max<int64_t>(run.steps, 0));
    actions_.leases.insert(lease.attempt_id);
  }

  void Charge(Lease& lease, const Run& run, int64_t step) {
    step = std::min(step, run.steps);
    if (step <= lease.last_step) return;
    Sweep& sweep = state_.sweeps.at(lease.sweep_id);
    if (!state_.hooks.skip_budget_charge) sweep.spent_flops += FlopsOfSteps(run, step - lease.last_step);
    lease.last_step = step;
    actions_.leases.insert(lease.attempt_id);
    actions_.sweeps.insert(sweep.id);
  }

  template <typename Predicate>
  void CloseWhere(const std::string& message, Predicate predicate) {
    std::vector<Lease> doomed;
    for (const auto& [id, lease] : state_.leases)
      if (predicate(lease)) doomed.push_back(lease);
    for (const Lease& lease : doomed) Close(lease, lease.cancelled ? Outcome::kCancelled : Outcome::kLost, message, 0);
  }

  void Close(const Lease& lease, Outcome outcome, const std::string& message, int64_t batch_sequences) {
    Run& run = *state_.FindRun(lease.run_id);
    Ending ending{outcome, lease.last_step > lease.first_step, lease.stop, batch_sequences};
    const NextTry next = DecideRetry(run, ending, state_.hooks);
    actions_.closed.push_back({lease, outcome, message});
    actions_.workers.insert(lease.worker_id);
    actions_.sweeps.insert(lease.sweep_id);
    if (!(state_.hooks.accept_twice && outcome == Outcome::kDone)) {
      state_.leases.erase(lease.attempt_id);
      run.live_attempt = 0;
    }
    if (next.backoff_ms > 0) StartBackoff(state_, run, now_ms_ + next.backoff_ms);
    SetState(state_, run, next.state, actions_);
  }

  void Retry(Run& run) {
    const bool lost_outputs = run.state == RunState::kDone && !run.keeps_outputs;
    if (run.state != RunState::kFailed && run.state != RunState::kDiverged && !lost_outputs) return;
    // From a state that diverged or is past its end there is nothing to go on from.
    if (run.state != RunState::kFailed) run.checkpoint_step = 0;
    run.crashes = run.out_of_memory = run.preemptions = 0;
    EndBackoff(state_, run);
    SetState(state_, run, RunState::kPending, actions_);
  }

  // Leases of runs that no live sweep wants are stopped and their results refused; a run that is wanted again gets its
  // result taken after all.
  void MarkCancelled() {
    for (auto& [id, lease] : state_.leases) {
      const bool cancelled = !IsWanted(state_, *state_.FindRun(lease.run_id));
      if (cancelled == lease.cancelled) continue;
      lease.cancelled = cancelled;
      lease.stop |= cancelled;
      TouchLease(lease);
    }
  }

  void StopPaused() {
    StopWhere([&](const Lease& lease) {
      return std::ranges::none_of(state_.FindRun(lease.run_id)->sweeps,
                                  [&](int64_t sweep) { return state_.sweeps.at(sweep).state == SweepState::kActive; });
    });
  }

  template <typename Predicate>
  void StopWhere(Predicate predicate) {
    for (auto& [id, lease] : state_.leases)
      if (!lease.stop && predicate(lease)) {
        lease.stop = true;
        TouchLease(lease);
      }
  }

  void TouchLease(const Lease& lease) {
    actions_.leases.insert(lease.attempt_id);
    actions_.workers.insert(lease.worker_id);
    actions_.runs.insert(lease.run_id);
  }

  void ChangePolicy(Sweep& sweep, const Policy* policy) {
    std::map<uint16_t, std::set<ReadyKey>> ready;
    for (const auto& [trainer, keys] : sweep.ready)
      for (const ReadyKey& key : keys) ready[trainer].insert({policy->rank(*state_.FindRun(key.run_id)), key.run_id});
    sweep.ready = std::move(ready);
    sweep.policy = policy;
  }

  State& state_;
  int64_t now_ms_;
  Actions& actions_;
};

}  // namespace

Actions Step(State& state, const Event& event, int64_t now_ms) {
  Actions actions;
  std::visit(Stepper(state, now_ms, actions), event);
  return actions;
}

}  // namespace allometry::scheduler
