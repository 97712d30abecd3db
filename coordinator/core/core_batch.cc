#include <algorithm>
#include <bit>

#include "common/fault_point.h"
#include "coordinator/core/core_internal.h"

// A batch: what is queued, applied, persisted, committed, and only then told.
namespace allometry::coordinator {
namespace {

constexpr size_t kMaxEvents = 1'000;  // of one transaction
constexpr int64_t kEventsDroppedAtOnce = 1'000;

std::string StateName(const scheduler::Sweep& sweep) {
  if (sweep.state == scheduler::SweepState::kCancelled) return "cancelled";
  if (sweep.finished()) return "finished";
  return sweep.state == scheduler::SweepState::kPaused ? "paused" : "active";
}

bool IsOver(const std::string& state) { return state == "cancelled" || state == "finished"; }

template <typename T>
void Add(const std::set<T>& from, std::set<T>* to) {
  to->insert(from.begin(), from.end());
}

}  // namespace

common::Status Core::CommitBatch() {
  if (!HasQueued() && loaded_) return common::Ok();
  Batch batch;
  batch.boot_ms = options_.now_boot_ms();
  batch.unix_ms = options_.now_unix_ms();
  if (!loaded_)
    if (const common::Status loaded = Load(); !loaded) return FailQueue(batch, loaded.error());
  store_->Begin();
  size_t events = 0;
  for (; !queue_.empty() && events < kMaxEvents && store_->status().ok(); ++events) {
    Queued queued = std::move(queue_.front());
    queue_.pop_front();
    batch.failures.push_back(std::move(queued.fail));
    queued.apply(batch);
  }
  RunSubmission(batch);
  Merge(batch, Step(state_, scheduler::Dispatch{}, batch.boot_ms));
  Persist(batch);
  common::FaultPoint("coordinator.before_commit");
  if (options_.hooks.reply_before_commit) Deliver(batch);
  const common::Status committed = store_->Commit();
  if (!committed) return FailBatch(batch, committed.error());
  common::FaultPoint("coordinator.after_commit");
  if (!submissions_.empty()) common::FaultPoint("coordinator.submission_part");
  storage_error_.clear();
  CountBatch(events);
  if (!options_.hooks.reply_before_commit) Deliver(batch);
  common::FaultPoint("coordinator.after_delivery");
  return common::Ok();
}

void Core::CountBatch(size_t events) {
  if (events == 0) return;
  const size_t bucket = std::bit_width(events) - 1;
  if (batch_histogram_.size() <= bucket) batch_histogram_.resize(bucket + 1);
  batch_histogram_[bucket]++;
}

common::Status Core::FailQueue(Batch& batch, const common::Error& error) {
  while (!queue_.empty()) {
    batch.failures.push_back(std::move(queue_.front().fail));
    queue_.pop_front();
  }
  return FailBatch(batch, error);
}

common::Status Core::FailBatch(Batch& batch, const common::Error& error) {
  storage_error_ = error.message;
  for (const auto& submission : submissions_)
    batch.failures.push_back([submission](const common::Error& e) {
      if (submission->reply) submission->reply(e);
    });
  submissions_.clear();
  for (auto& [id, session] : sessions_) session.last_request = session.committed_request;
  if (const common::Status loaded = Load(); !loaded) storage_error_ = loaded.error().message;
  for (auto& [id, watch] : watches_) RestartWatch(*watch);
  for (const auto& fail : batch.failures) fail(error);
  return error;
}

void Core::Merge(Batch& batch, scheduler::Actions actions) { Merge(batch, std::move(actions), {}); }

void Core::Merge(Batch& batch, scheduler::Actions actions, const store::AttemptEnd& end) {
  for (scheduler::ClosedAttempt& closed : actions.closed) {
    closed.message = MessageOf(closed);
    const auto noted = noted_ends_.find(closed.lease.attempt_id);
    const bool told = end.exit_code != 0 || end.signal != 0 || end.accepted;
    store_->CloseAttempt(closed, told || noted == noted_ends_.end() ? end : noted->second, batch.unix_ms);
    noted_ends_.erase(closed.lease.attempt_id);
    precision_known_.erase(closed.lease.attempt_id);
    const scheduler::Run& run = *state_.FindRun(closed.lease.run_id);
    const bool ended = run.state != scheduler::RunState::kPending && run.state != scheduler::RunState::kRunning;
    const bool failure = run.state != scheduler::RunState::kDone && closed.outcome != scheduler::Outcome::kStopped &&
                         closed.outcome != scheduler::Outcome::kCancelled;
    store_->RunEnded(run.id, failure ? OneLine(closed.message) : "", ended ? batch.unix_ms : 0);
    batch.actions.leases.erase(closed.lease.attempt_id);
  }
  std::ranges::move(actions.opened, std::back_inserter(batch.actions.opened));
  Add(actions.runs, &batch.actions.runs);
  Add(actions.sweeps, &batch.actions.sweeps);
  Add(actions.leases, &batch.actions.leases);
  Add(actions.workers, &batch.actions.workers);
}

// In a gang it matters whose end it was.
std::string Core::MessageOf(const scheduler::ClosedAttempt& closed) const {
  if (!closed.lease.gang() || closed.outcome == scheduler::Outcome::kDone) return closed.message;
  return "rank " + std::to_string(closed.rank) + " on " +
         WorkerName(closed.lease.placements[static_cast<size_t>(closed.rank)].worker_id) + ": " + closed.message;
}

void Core::Persist(Batch& batch) {
  for (int64_t id : batch.actions.runs) store_->UpdateRun(*state_.FindRun(id));
  PersistAttempts(batch);
  for (int64_t id : batch.actions.sweeps) PersistSweep(batch, id);
  for (int64_t id : batch.actions.workers) PersistWorker(batch, id);
  RecordEvents(batch);
}

void Core::PersistAttempts(Batch& batch) {
  for (int64_t id : batch.actions.leases) {
    const auto lease = state_.leases.find(id);
    if (lease == state_.leases.end()) continue;
    store_->UpdateAttempt(lease->second);
    batch.progressed_runs.insert(lease->second.run_id);
  }
  for (const scheduler::Lease& lease : batch.actions.opened) {
    store_->InsertAttempt(lease, batch.unix_ms);
    store_->RunStarted(lease.run_id, batch.unix_ms);
    InheritPrecision(lease.run_id);
  }
}

void Core::InheritPrecision(int64_t run_id) {
  const scheduler::Run& run = *state_.FindRun(run_id);
  if (run.kind != scheduler::Kind::kFinetune || run.generation > 1) return;
  for (int64_t parent : run.parents)
    if (state_.FindRun(parent)->kind == scheduler::Kind::kPretrain)
      if (const std::string precision = store_->TextOf(parent).precision; !precision.empty())
        store_->SetPrecision(run_id, precision);
}

void Core::PersistSweep(Batch& batch, int64_t sweep_id) {
  const scheduler::Sweep& sweep = state_.sweeps.at(sweep_id);
  store::SweepRow& row = sweeps_.at(sweep_id);
  const std::string state = StateName(sweep);
  const bool changed = state != row.state;
  if (!changed && sweep.spent_flops == row.spent_flops && !batch.changed_sweeps.contains(sweep_id)) return;
  if (changed) {
    row.finished_unix_ms = IsOver(state) ? batch.unix_ms : 0;
    batch.changed_sweeps.insert(sweep_id);
  }
  row.state = state;
  row.spent_flops = sweep.spent_flops;
  store_->PutSweep(row);
}

void Core::PersistWorker(Batch& batch, int64_t worker_id) {
  auto row = workers_.find(worker_id);
  if (row == workers_.end()) return;
  const auto worker = state_.workers.find(worker_id);
  std::string state = "left";
  if (worker != state_.workers.end() && !batch.removed_workers.contains(worker_id))
    state = !worker->second.connected ? "lost" : worker->second.draining ? "draining" : "connected";
  if (state == row->second.state) return;
  row->second.state = state;
  store_->PutWorker(row->second);
}

void Core::RecordEvents(Batch& batch) {
  std::set<std::pair<int64_t, int64_t>> changes = batch.left_sweeps;
  for (int64_t run : batch.actions.runs)
    for (int64_t sweep : state_.FindRun(run)->sweeps) changes.insert({sweep, run});
  for (int64_t sweep : batch.changed_sweeps) changes.insert({sweep, 0});
  for (const auto& [sweep, run] : changes) {
    store_->AddEvent(++last_event_, sweep, run, batch.unix_ms);
    MarkWatches(sweep, run);
  }
  for (int64_t run : batch.progressed_runs)
    for (int64_t sweep : state_.FindRun(run)->sweeps) MarkWatches(sweep, run);
  if (last_event_ - first_event_ < options_.kept_events + kEventsDroppedAtOnce) return;
  first_event_ = last_event_ - options_.kept_events;
  store_->DropEventsUpTo(first_event_);
  store_->SetMeta("first_event", std::to_string(first_event_));
}

void Core::Deliver(Batch& batch) {
  for (auto& [id, session] : sessions_) session.committed_request = session.last_request;
  for (const auto& deliver : batch.deliveries) deliver();
  for (int64_t id : batch.actions.workers) {
    const auto session = sessions_.find(id);
    if (session == sessions_.end() || !session->second.connected || batch.answered_workers.contains(id)) continue;
    // An error here is a failed read: the worker's next message asks again.
    if (auto orders = OrdersFor(id); orders) outbox_->SendOrders(id, *std::move(orders));
  }
  for (auto& [id, watch] : watches_) NotifyWatch(id, *watch);
}

}  // namespace allometry::coordinator
