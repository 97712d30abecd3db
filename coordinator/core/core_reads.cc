#include <algorithm>

#include "common/json.h"
#include "coordinator/core/core_internal.h"
#include "coordinator/scheduler/gangs.h"

// Answers from committed state.
namespace allometry::coordinator {
namespace {

using common::Result;
using scheduler::RunState;
using scheduler::WaitReason;

constexpr int64_t kDefaultPage = 1'000;
constexpr int64_t kMaxPage = 10'000;

v1::SweepState SweepStateMessage(const std::string& state) {
  if (state == "paused") return v1::SWEEP_STATE_PAUSED;
  if (state == "cancelled") return v1::SWEEP_STATE_CANCELLED;
  return state == "finished" ? v1::SWEEP_STATE_FINISHED : v1::SWEEP_STATE_ACTIVE;
}

// "key=value,key=value": all must hold.
Result<std::map<std::string, std::string>> ParseFilter(const std::string& text) {
  static const std::set<std::string> kKeys{"architecture", "size", "seed", "kind"};
  std::map<std::string, std::string> filter;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string term = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t equals = term.find('=');
    const std::string key = term.substr(0, equals);
    if (equals == std::string::npos || (!kKeys.contains(key) && !key.starts_with("tag.")))
      return common::InvalidArgument("filter term '" + term +
                                     "': use architecture=, size=, seed=, kind= or tag.<name>=");
    filter[key] = term.substr(equals + 1);
  }
  return filter;
}

std::string FieldOf(const store::CellRow& row, const std::string& key) {
  if (key == "architecture") return row.architecture;
  if (key == "size") return row.size;
  if (key == "seed") return std::to_string(row.seed);
  if (key == "kind") return row.kind;
  const auto tags = TagsFromJson(row.tags_json);
  const auto tag = tags.find(key.substr(4));
  return tag == tags.end() ? "" : tag->second;
}

bool Matches(const store::CellRow& row, const std::map<std::string, std::string>& filter) {
  return std::ranges::all_of(filter, [&](const auto& term) { return FieldOf(row, term.first) == term.second; });
}

Result<int64_t> ParsePosition(const std::string& token) {
  if (token.empty()) return int64_t{0};
  if (token.size() > 18 || token.find_first_not_of("0123456789") != std::string::npos)
    return common::OutOfRange("page token '" + token + "' is not one of this list: list again from the start");
  return std::stoll(token);
}

std::string ResultText(const store::ResultRow& row) {
  return "{\"metrics\":" + row.metrics_json + ",\"scores\":" + row.scores_json + "}";
}

v1::AttemptInfo AttemptMessage(const store::AttemptRow& row, const std::string& worker) {
  v1::AttemptInfo info;
  info.set_attempt_id(row.attempt_id);
  info.set_generation(row.generation);
  info.set_worker(worker);
  info.set_outcome(row.outcome);
  info.set_exit_code(static_cast<int32_t>(row.exit_code));
  info.set_signal(static_cast<int32_t>(row.signal));
  info.set_message(row.message);
  info.set_started_unix_ms(row.started_unix_ms);
  info.set_ended_unix_ms(row.ended_unix_ms);
  info.set_first_step(row.first_step);
  info.set_last_step(row.last_step);
  info.set_provenance_json(row.provenance_json);
  return info;
}

}  // namespace

Result<int64_t> Core::SweepIdOf(const std::string& name) const {
  if (!loaded_) return common::Unavailable(storage_error_);
  const auto found = sweep_ids_.find(name);
  if (found == sweep_ids_.end()) return common::NotFound("no sweep '" + name + "': `allo status` names them");
  return found->second;
}

v1::Sweep Core::SweepMessage(int64_t sweep_id) const {
  const store::SweepRow& row = sweeps_.at(sweep_id);
  const scheduler::Sweep& sweep = state_.sweeps.at(sweep_id);
  v1::Sweep message;
  message.set_name(row.name);
  message.set_description(row.description);
  message.set_state(SweepStateMessage(row.state));
  for (const auto& [key, value] : TagsFromJson(row.tags_json)) (*message.mutable_tags())[key] = value;
  message.set_cells(sweep.counts.cells());
  message.set_pending(sweep.counts.pending);
  message.set_running(sweep.counts.running);
  message.set_done(sweep.counts.done);
  message.set_failed(sweep.counts.failed);
  message.set_diverged(sweep.counts.diverged);
  message.set_blocked(sweep.counts.blocked);
  message.set_flops_spent(sweep.spent_flops);
  message.set_flops_reserved(scheduler::ReservedFlops(state_, sweep_id));
  message.set_flops_budget(sweep.budget_flops);
  message.set_priority(sweep.priority);
  message.set_submitted_unix_ms(row.submitted_unix_ms);
  message.set_finished_unix_ms(row.finished_unix_ms);
  message.set_update_token(last_event_);
  return message;
}

std::string Core::WorkerName(int64_t worker_id) const {
  const auto row = workers_.find(worker_id);
  return row == workers_.end() ? "" : row->second.name;
}

// Each once, with the number of its ranks where there are several: "one, two (3)".
std::string Core::WorkerNames(const scheduler::Lease& lease) const {
  std::string names;
  std::set<int64_t> named;
  for (const scheduler::Placement& placement : lease.placements) {
    if (!named.insert(placement.worker_id).second) continue;
    const auto ranks = std::ranges::count(lease.placements, placement.worker_id, &scheduler::Placement::worker_id);
    names += (names.empty() ? "" : ", ") + WorkerName(placement.worker_id);
    if (ranks > 1) names += " (" + std::to_string(ranks) + ")";
  }
  return names;
}

v1::CellStatus Core::CellMessage(const store::CellRow& row, const std::string& sweep, bool with_results) {
  const scheduler::Run& run = *state_.FindRun(row.run_id);
  v1::CellStatus cell;
  cell.set_cell(sweep + "/" + row.name);
  cell.set_kind(KindFromName(row.kind));
  cell.set_state(StateMessage(run.state));
  const WaitReason waiting = row.wanted ? scheduler::WaitReasonOf(state_, run) : WaitReason::kCancelled;
  if (run.state == RunState::kPending) cell.set_waiting(static_cast<v1::WaitReason>(waiting));
  cell.set_architecture(row.architecture);
  cell.set_size(row.size);
  cell.set_seed(row.seed);
  cell.set_identity(row.identity);
  cell.set_run_id(row.run_id);
  cell.set_attempt(run.generation);
  cell.set_worker(WorkerName(row.worker_id));
  cell.set_steps(run.steps);
  cell.set_step(run.state == RunState::kDone ? run.steps : run.checkpoint_step);
  if (const auto lease = state_.leases.find(run.live_attempt); lease != state_.leases.end()) {
    cell.set_worker(WorkerNames(lease->second));
    cell.set_step(lease->second.last_step);
    cell.set_loss(lease->second.loss);
    cell.set_tokens_per_second(lease->second.tokens_per_second);
  }
  cell.set_started_unix_ms(row.started_unix_ms);
  cell.set_finished_unix_ms(row.finished_unix_ms);
  cell.set_error(row.error);
  *cell.mutable_costs() = CostsFromJson(row.costs_json);
  for (const auto& [key, value] : TagsFromJson(row.tags_json)) (*cell.mutable_tags())[key] = value;
  if (with_results && run.state == RunState::kDone)
    if (const auto result = store_->Result(row.run_id)) cell.set_result_json(ResultText(*result));
  return cell;
}

Result<v1::PlanResponse> Core::Plan(const std::vector<Cell>& cells) {
  if (!loaded_) return common::Unavailable(storage_error_);
  v1::PlanResponse response;
  for (const Cell& cell : cells) {
    v1::PlannedCell* planned = response.add_cells();
    planned->set_cell(cell.name);
    planned->set_kind(cell.kind);
    planned->set_architecture(cell.architecture);
    planned->set_size(cell.size);
    planned->set_seed(cell.seed);
    planned->set_identity(cell.identity);
    *planned->mutable_costs() = cell.costs;
    planned->set_run_json(cell.run_json);
    planned->set_devices(cell.devices);
    planned->set_slots_per_gpu(cell.slots_per_gpu);
    const int64_t run_id = store_->RunIdOf(cell.identity);
    if (run_id != 0) planned->set_existing(StateMessage(state_.FindRun(run_id)->state));
    if (planned->existing() != v1::RUN_STATE_DONE)
      response.set_training_flops(response.training_flops() + cell.costs.training_flops());
  }
  int64_t slots = 0;
  for (const auto& [id, worker] : state_.workers)
    if (worker.connected && !worker.draining) slots += scheduler::EmptyRoom(worker).slots;
  const double flops_per_second = store_->ObservedFlopsPerSecond() * static_cast<double>(slots);
  if (flops_per_second > 0) response.set_expected_seconds(response.training_flops() / flops_per_second);
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  return response;
}

Result<v1::Sweep> Core::Get(const std::string& sweep) {
  ALLO_ASSIGN_OR_RETURN(const int64_t sweep_id, SweepIdOf(sweep));
  return SweepMessage(sweep_id);
}

Result<v1::ListResponse> Core::List(const v1::ListRequest& request) {
  if (!loaded_) return common::Unavailable(storage_error_);
  if (!request.sweep().empty()) return ListCells(request);
  v1::ListResponse response;
  response.set_token(last_event_);
  for (const auto& [id, row] : sweeps_) *response.add_sweeps() = SweepMessage(id);
  return response;
}

Result<v1::ListResponse> Core::ListCells(const v1::ListRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const int64_t sweep_id, SweepIdOf(request.sweep()));
  ALLO_ASSIGN_OR_RETURN(const auto filter, ParseFilter(request.filter()));
  ALLO_ASSIGN_OR_RETURN(int64_t position, ParsePosition(request.page_token()));
  const int64_t size = request.page_size() <= 0 ? kDefaultPage : std::min<int64_t>(request.page_size(), kMaxPage);
  v1::ListResponse response;
  response.set_token(last_event_);
  for (bool more = true; more && response.cells_size() < size;) {
    const auto rows = store_->CellsAfter(sweep_id, position, size);
    more = static_cast<int64_t>(rows.size()) == size;
    for (const store::CellRow& row : rows) {
      position = row.position;
      const v1::RunState state = StateMessage(state_.FindRun(row.run_id)->state);
      const bool asked =
          request.states().empty() || std::ranges::find(request.states(), state) != request.states().end();
      if (row.wanted && asked && Matches(row, filter))
        *response.add_cells() = CellMessage(row, request.sweep(), request.with_results());
      if (response.cells_size() < size) continue;
      more = more || &row != &rows.back();
      break;
    }
    if (more)
      response.set_next_page_token(std::to_string(position));
    else
      response.clear_next_page_token();
  }
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  return response;
}

Result<store::CellRow> Core::FindCell(const std::string& cell) {
  const size_t slash = cell.find('/');
  if (slash == std::string::npos) return common::InvalidArgument("name a cell as <sweep>/<cell>, not '" + cell + "'");
  ALLO_ASSIGN_OR_RETURN(const int64_t sweep_id, SweepIdOf(cell.substr(0, slash)));
  auto row = store_->CellByName(sweep_id, cell.substr(slash + 1));
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  if (!row)
    return common::NotFound("sweep '" + cell.substr(0, slash) + "' has no cell '" + cell.substr(slash + 1) + "'");
  return *std::move(row);
}

Result<v1::ExplainResponse> Core::Explain(const v1::ExplainRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const store::CellRow row, FindCell(request.cell()));
  const std::string& sweep = sweeps_.at(row.sweep_id).name;
  v1::ExplainResponse response;
  *response.mutable_cell() = CellMessage(row, sweep, true);
  for (const store::AttemptRow& attempt : store_->AttemptsOf(row.run_id)) {
    *response.add_attempts() = AttemptMessage(attempt, WorkerName(attempt.worker_id));
    if (attempt.rank_workers.size() > 1)
      for (int64_t worker_id : attempt.rank_workers)
        response.mutable_attempts()->rbegin()->add_rank_workers(WorkerName(worker_id));
  }
  for (int64_t parent : state_.FindRun(row.run_id)->parents)
    if (const auto parent_row = store_->CellOfRun(row.sweep_id, parent))
      *response.add_parents() = CellMessage(*parent_row, sweep, false);
  response.set_text(ExplainText(response.cell(), response));
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  return response;
}

namespace {

common::Error ModelNotKept(const std::string& path, const std::string& sweep, const std::string& cell) {
  return common::FailedPrecondition("the model of cell '" + path +
                                    "' was not kept: submit the sweep with 'keep_models: all' (--update), " +
                                    "then allo retry " + sweep + " " + cell + " trains it again");
}

}  // namespace

Result<v1::OutputsResponse> Core::OutputsOfCell(const v1::OutputsRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const store::CellRow row, FindCell(request.cell()));
  const scheduler::Run& run = *state_.FindRun(row.run_id);
  if (run.state != RunState::kDone)
    return common::FailedPrecondition("cell '" + request.cell() + "' is not done: allo explain " + request.cell());
  const std::string usual = run.kind == scheduler::Kind::kPrepare ? "data" : "model";
  const std::string& wanted = request.output().empty() ? usual : request.output();
  const std::vector<store::FileRow> files = store_->OutputsOf(row.run_id, wanted);
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  if (files.empty())
    return wanted == "model" ? ModelNotKept(request.cell(), sweeps_.at(row.sweep_id).name, row.name)
                             : common::NotFound("cell '" + request.cell() + "' left no output '" + wanted + "'");
  v1::OutputsResponse response;
  response.set_kind(static_cast<v1::RunKind>(run.kind));
  *response.add_outputs() = OutputOf(wanted, files);
  return response;
}

Result<Core::AttemptPlace> Core::FindAttempt(const std::string& cell, int64_t attempt_id) {
  ALLO_ASSIGN_OR_RETURN(const store::CellRow row, FindCell(cell));
  const auto attempts = store_->AttemptsOf(row.run_id);
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  for (auto attempt = attempts.rbegin(); attempt != attempts.rend(); ++attempt)
    if (attempt_id == 0 || attempt->attempt_id == attempt_id)
      return AttemptPlace{attempt->attempt_id, attempt->outcome == "live"};
  return common::NotFound(attempt_id == 0 ? "cell '" + cell + "' has not been started yet"
                                          : "cell '" + cell + "' has no attempt " + std::to_string(attempt_id));
}

v1::WorkerInfo Core::WorkerMessage(const store::WorkerRow& row) const {
  v1::WorkerInfo info;
  info.set_worker_id(row.worker_id);
  info.set_name(row.name);
  info.set_host(row.host);
  info.set_state(row.state);
  info.set_slots(static_cast<int32_t>(row.slots));
  info.set_busy(scheduler::BusySlots(state_, row.worker_id));
  info.set_memory_bytes(row.memory_bytes);
  const std::vector<std::string> devices = StringsFromJson(row.devices_json);
  for (const std::string& device : devices) info.add_devices(device);
  if (const auto worker = state_.workers.find(row.worker_id); worker != state_.workers.end())
    for (size_t i = 0; i < std::min(devices.size(), worker->second.devices.size()); ++i)
      if (const std::string& fault = worker->second.devices[i].fault; !fault.empty())
        info.add_faults(devices[i] + ": " + fault);
  for (const std::string& trainer : StringsFromJson(row.trainers_json)) info.add_trainers(trainer);
  info.set_last_seen_unix_ms(row.last_seen_unix_ms);
  info.set_version(row.version);
  return info;
}

v1::ListWorkersResponse Core::ListWorkers() {
  v1::ListWorkersResponse response;
  for (const auto& [id, row] : workers_)
    if (row.state != "left") *response.add_workers() = WorkerMessage(row);
  return response;
}

v1::StatusResponse Core::Status() {
  v1::StatusResponse response;
  response.set_cluster_id(cluster_id_);
  response.set_version(options_.version);
  response.set_commit(options_.commit);
  response.set_started_unix_ms(started_unix_ms_);
  response.set_data_dir(options_.data_dir);
  for (const auto& [id, worker] : state_.workers) {
    if (!worker.connected) continue;
    response.set_workers(response.workers() + 1);
    response.set_slots(response.slots() + worker.slots);
    if (!worker.draining) response.set_free_slots(response.free_slots() + scheduler::FreeSlots(state_, worker));
  }
  response.set_runs(static_cast<int64_t>(state_.runs.size()));
  response.set_pending(std::ranges::count(state_.runs, RunState::kPending, &scheduler::Run::state));
  response.set_running(std::ranges::count(state_.runs, RunState::kRunning, &scheduler::Run::state));
  response.set_database_bytes(store_->DatabaseBytes());
  for (int64_t count : batch_histogram_) response.add_batch_histogram(count);
  response.set_storage_error(storage_error_);
  return response;
}

Result<bool> Core::NamesBlob(const std::string& sha256) {
  const bool names = store_->NamesBlob(sha256);
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  return names;
}

}  // namespace allometry::coordinator
