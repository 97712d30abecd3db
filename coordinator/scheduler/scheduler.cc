#include "coordinator/scheduler/scheduler.h"

#include <algorithm>
#include <tuple>

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

  void operator()(const SetDevices& e) {
    Run& run = *state_.FindRun(e.run_id);
    auto place = std::tie(run.devices, run.most_devices, run.replicated_bytes, run.slots_per_gpu, run.gpu_whole_bytes,
                          run.gpu_divided_bytes);
    const auto asked = std::tie(e.devices, e.most_devices, e.replicated_bytes, e.slots_per_gpu, e.gpu_whole_bytes,
                                e.gpu_divided_bytes);
    if (place == asked) return;
    place = asked;
    actions_.runs.insert(run.id);
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
    CloseWhere("the worker's process ended",
               [&](const Lease&, const Placement& placement) { return placement.worker_id == e.worker_id; });
    state_.workers.erase(e.worker_id);
    actions_.workers.insert(e.worker_id);
  }

  void operator()(const DrainWorker& e) {
    auto worker = state_.workers.find(e.worker_id);
    if (worker == state_.workers.end()) return;
    worker->second.draining = true;
    actions_.workers.insert(e.worker_id);
    if (e.now) StopWhere([&](const Lease& lease) { return lease.IsOn(e.worker_id); });
  }

  void operator()(const WorkerSynced& e) {
    auto found = state_.workers.find(e.worker_id);
    if (found == state_.workers.end()) return;
    Worker& worker = found->second;
    worker.last_heard_ms = now_ms_;
    if (!worker.connected || (e.draining && !worker.draining)) actions_.workers.insert(worker.id);
    worker.connected = !e.leaving;
    worker.draining |= e.draining;
    TakeFaults(worker, e.faults);
    std::set<std::pair<int64_t, int>> held;
    for (const HeldLease& report : e.held)
      if (Renew(worker, report, e.acknowledged)) held.insert({report.attempt_id, report.rank});
    // What the worker knows of and no longer holds will not come back.
    CloseWhere("the worker no longer holds it", [&](const Lease& lease, const Placement& placement) {
      const bool knows = e.leaving || (placement.ordered_in != 0 && e.acknowledged >= placement.ordered_in);
      const int rank = static_cast<int>(&placement - lease.placements.data());
      return placement.worker_id == worker.id && knows && !held.contains({lease.attempt_id, rank});
    });
  }

  void operator()(const AttemptFinished& e) {
    const Lease* current = CurrentLease(state_, e.run_id, e.attempt_id, e.generation);
    if (current == nullptr || e.rank < 0 || e.rank >= static_cast<int>(current->placements.size())) return;
    Lease& lease = state_.leases.at(current->attempt_id);
    Run& run = *state_.FindRun(lease.run_id);
    const bool done = e.rank == 0 && e.outcome == Outcome::kDone;
    if (e.rank == 0) {
      if (e.resumed_step && !lease.first_step_known) StartAt(lease, run, *e.resumed_step);
      Charge(lease, run, done ? run.steps : e.last_step);
    }
    actions_.cancelled = lease.cancelled && done;
    actions_.accepted = !actions_.cancelled;
    if (done && actions_.accepted) run.keeps_outputs = e.keeps_outputs;
    if (IsFaultOfDevice(e.outcome)) MarkFault(run, lease.placements[static_cast<size_t>(e.rank)], e.outcome);
    if (EndsTheAttempt(lease, e))
      Close(Lease(lease), lease.cancelled ? Outcome::kCancelled : e.outcome, e.message, e.rank,
            TriedAtOnce(e, run, static_cast<int64_t>(lease.placements.size())));
    else
      Note(lease, e);
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
      CloseWhere("its lease ran out",
                 [&](const Lease&, const Placement& placement) { return placement.expires_ms <= now_ms_; });
    CloseLostPeers();
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
  void TakeFaults(Worker& worker, const std::map<int, std::string>& faults) {
    for (size_t i = 0; i < worker.devices.size(); ++i) {
      const auto fault = faults.find(static_cast<int>(i));
      const std::string reason = fault == faults.end() ? "" : fault->second;
      if (worker.devices[i].fault == reason) continue;
      worker.devices[i].fault = reason;
      actions_.workers.insert(worker.id);
    }
  }

  // Until the worker tells itself what it has taken out of service, so that the run does not come back at once. The
  // driver is every device's. A trainer of one's own may need another CUDA than the built-in one, by which the worker
  // judges: its word on the driver is no fault of the devices.
  void MarkFault(const Run& run, const Placement& placement, Outcome outcome) {
    if (outcome == Outcome::kDriverTooOld && !state_.IsBuiltin(run)) return;
    const auto worker = state_.workers.find(placement.worker_id);
    if (worker == state_.workers.end()) return;
    for (size_t i = 0; i < worker->second.devices.size(); ++i)
      if (outcome == Outcome::kDriverTooOld || static_cast<int>(i) == placement.device)
        if (Device& device = worker->second.devices[i]; device.fault.empty()) device.fault = OutcomeName(outcome);
  }

  bool Renew(const Worker& worker, const HeldLease& report, uint64_t acknowledged) {
    auto found = state_.leases.find(report.attempt_id);
    if (found == state_.leases.end()) return false;
    Lease& lease = found->second;
    if (report.rank < 0 || report.rank >= static_cast<int>(lease.placements.size())) return false;
    Placement& placement = lease.placements[static_cast<size_t>(report.rank)];
    if (placement.worker_id != worker.id || lease.generation != report.generation) return false;
    placement.seen = true;
    placement.expires_ms = now_ms_ + state_.lease_ttl_ms;
    placement.told |= placement.told_in != 0 && acknowledged >= placement.told_in;
    if (report.rank == 0) TakeProgress(lease, report);
    return true;
  }

  // Rank 0 speaks for the attempt.
  void TakeProgress(Lease& lease, const HeldLease& report) {
    lease.loss = report.loss;
    lease.tokens_per_second = report.tokens_per_second;
    Run& run = *state_.FindRun(lease.run_id);
    if (report.started && !lease.first_step_known) StartAt(lease, run, report.resumed_step);
    Charge(lease, run, report.step);
    if (report.rendezvous == lease.rendezvous || report.rendezvous.empty()) return;
    lease.rendezvous = report.rendezvous;
    for (Placement& placement : lease.placements) {
      placement.told_in = 0;
      placement.told = false;
      actions_.workers.insert(placement.worker_id);
    }
  }

  // Sequences of a rank: what the trainer told, at most what it was given. One that does not tell and was given nothing
  // may have tried its whole share of the batch.
  static int64_t TriedAtOnce(const AttemptFinished& e, const Run& run, int64_t ranks) {
    const int64_t given = run.micro_batch > 0 ? run.micro_batch : (e.batch_sequences + ranks - 1) / ranks;
    if (e.micro_batch <= 0) return given;
    return given > 0 ? std::min(given, e.micro_batch) : e.micro_batch;
  }

  // Of the ranks after 0, success is no news before rank 0 has told its result, and whoever was stopped waits for rank
  // 0's checkpoint. A lost peer is nobody's own failure: the cause may still be on its way.
  static bool EndsTheAttempt(const Lease& lease, const AttemptFinished& e) {
    if (e.outcome == Outcome::kPeerLost) return !lease.gang();
    return e.rank == 0 || (e.outcome != Outcome::kDone && e.outcome != Outcome::kStopped);
  }

  void Note(Lease& lease, const AttemptFinished& e) {
    actions_.noted = true;
    lease.placements[static_cast<size_t>(e.rank)].finished = true;
    if (e.outcome == Outcome::kStopped) lease.rank_stopped = true;
    if (e.outcome == Outcome::kPeerLost && lease.peer_lost_until_ms == 0) {
      lease.peer_lost_until_ms = now_ms_ + kPeerLostWaitMs;
      lease.peer_lost_message = e.message;
      lease.peer_lost_rank = e.rank;
    }
    TouchLease(lease);
    if (lease.peer_lost_until_ms != 0 && std::ranges::all_of(lease.placements, &Placement::finished))
      CloseLostPeer(Lease(lease));
  }

  // Attempts with a lost peer of which nobody has said why in time.
  void CloseLostPeers() {
    std::vector<Lease> doomed;
    for (const auto& [id, lease] : state_.leases)
      if (lease.peer_lost_until_ms != 0 && lease.peer_lost_until_ms <= now_ms_) doomed.push_back(lease);
    for (const Lease& lease : doomed) CloseLostPeer(lease);
  }

  void CloseLostPeer(const Lease& lease) {
    if (lease.cancelled) return Close(lease, Outcome::kCancelled, lease.peer_lost_message, lease.peer_lost_rank, 0);
    // Ranks that are asked to stop do not all go in the same moment.
    if (lease.stop || lease.rank_stopped)
      return Close(lease, Outcome::kStopped, lease.peer_lost_message, lease.peer_lost_rank, 0);
    for (size_t rank = 0; rank < lease.placements.size(); ++rank) {
      const auto worker = state_.workers.find(lease.placements[rank].worker_id);
      if (lease.placements[rank].finished || (worker != state_.workers.end() && worker->second.connected)) continue;
      return Close(lease, Outcome::kLost, "the worker is out of reach, and another rank saw it go",
                   static_cast<int>(rank), 0);
    }
    Close(lease, Outcome::kPeerLost, lease.peer_lost_message, lease.peer_lost_rank, 0);
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

  // Attempts of which one rank is gone. A rank that has ended by itself is not missed.
  template <typename Predicate>
  void CloseWhere(const std::string& message, Predicate predicate) {
    std::vector<std::pair<Lease, int>> doomed;
    for (const auto& [id, lease] : state_.leases)
      for (const Placement& placement : lease.placements)
        if (!placement.finished && predicate(lease, placement)) {
          const int rank = static_cast<int>(&placement - lease.placements.data());
          if (rank > 0 && state_.hooks.ignore_lost_rank) continue;
          doomed.emplace_back(lease, rank);
          break;
        }
    for (const auto& [lease, rank] : doomed)
      Close(lease, lease.cancelled ? Outcome::kCancelled : Outcome::kLost, message, rank, 0);
  }

  void Close(const Lease& lease, Outcome outcome, const std::string& message, int rank, int64_t micro_batch) {
    Run& run = *state_.FindRun(lease.run_id);
    const bool whole = lease.placements.front().parts == kPartsOfDevice;
    Ending ending{outcome, lease.last_step > lease.first_step, lease.stop, micro_batch, whole, state_.IsBuiltin(run)};
    const NextTry next = DecideRetry(run, ending, state_.hooks);
    actions_.closed.push_back({lease, outcome, message, rank});
    for (const Placement& placement : lease.placements) actions_.workers.insert(placement.worker_id);
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
    for (const Placement& placement : lease.placements) actions_.workers.insert(placement.worker_id);
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
