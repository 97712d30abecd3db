#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "coordinator/core/core_internal.h"

// Submitting, updating, cancelling, retrying, pausing.
namespace allometry::coordinator {
namespace {

using common::Error;
using common::Result;
using scheduler::RunState;

std::string SpecJson(const v1::SweepSpec& spec) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(spec, &json, options).ok()) return "{}";
  return json;
}

store::SweepRow RowOf(const v1::SubmitRequest& request, const std::string& content_hash, int64_t unix_ms) {
  const v1::SweepSpec& spec = request.spec();
  store::SweepRow row;
  row.name = spec.name();
  row.description = spec.description();
  row.tags_json = TagsToJson({spec.tags().begin(), spec.tags().end()});
  row.spec_json = SpecJson(spec);
  row.content_hash = content_hash;
  row.request_uuid = request.request_uuid();
  row.state = "expanding";
  row.policy = spec.scheduling().policy();
  row.priority = spec.scheduling().priority();
  row.budget_flops = spec.budget().flops();
  row.limit_seconds = spec.limits().seconds();
  row.limit_memory_bytes = spec.limits().memory_bytes();
  row.limit_threads = spec.limits().threads();
  row.activation_checkpointing = spec.activation_checkpointing();
  row.keep_models = spec.keep_models() == "all";
  row.submitted_unix_ms = unix_ms;
  return row;
}

common::Status CheckCells(const std::vector<Cell>& cells) {
  if (cells.empty())
    return common::InvalidArgument("the sweep has no cells: name at least one architecture, size and seed");
  std::set<std::string> names, identities;
  for (const Cell& cell : cells) {
    if (!names.insert(cell.name).second) return common::InvalidArgument("two cells are called '" + cell.name + "'");
    for (const CellParent& parent : cell.parents)
      if (!identities.contains(parent.identity))
        return common::InvalidArgument("cell '" + cell.name + "' needs a parent that does not come before it");
    if (!identities.insert(cell.identity).second)
      return common::InvalidArgument("cell '" + cell.name + "' is the same run as another cell of the sweep");
  }
  return common::Ok();
}

scheduler::SetDevices DevicesOfCell(const Cell& cell, int64_t run_id) {
  return {run_id,
          static_cast<uint16_t>(cell.devices),
          static_cast<uint16_t>(cell.most_devices),
          cell.costs.replicated_bytes(),
          static_cast<uint8_t>(cell.slots_per_gpu),
          cell.costs.gpu_whole_bytes(),
          cell.costs.gpu_divided_bytes()};
}

std::string AlreadyDifferent(const std::string& name) {
  return "sweep '" + name + "' exists with different content: choose another name, or change it with --update";
}

}  // namespace

void Core::ApplySubmit(Batch& batch, const v1::SubmitRequest& request, std::shared_ptr<Submission> submission) {
  auto reply = [&](Result<v1::SubmitResponse> result) {
    auto shared = std::make_shared<Result<v1::SubmitResponse>>(std::move(result));
    batch.deliveries.push_back([submission, shared] {
      if (submission->reply) submission->reply(std::move(*shared));
    });
  };
  const v1::SweepSpec& spec = request.spec();
  submission->policy = scheduler::FindPolicy(spec.scheduling().policy());
  if (submission->policy == nullptr)
    return reply(common::InvalidArgument("scheduling.policy '" + spec.scheduling().policy() +
                                         "' is unknown: use fewest_flops_first or fifo"));
  if (spec.name().empty()) return reply(common::InvalidArgument("the sweep has no name: give it one with `name:`"));
  if (auto checked = CheckCells(submission->cells); !checked) return reply(checked.error());
  for (const auto& other : submissions_)
    if (other->row.name == spec.name())
      return reply(common::Unavailable("sweep '" + spec.name() + "' is being submitted now: try again in a moment"));
  if (store_->HasImported(spec.name()))
    return reply(common::AlreadyExists("an imported table is called '" + spec.name() + "': choose another name"));
  const std::string content_hash = ContentHash(spec, submission->cells);
  submission->row = RowOf(request, content_hash, batch.unix_ms);
  const auto existing = sweep_ids_.find(spec.name());
  if (existing == sweep_ids_.end()) return BeginSubmission(batch, submission);
  const store::SweepRow& row = sweeps_.at(existing->second);
  const bool repeated = !request.request_uuid().empty() && row.request_uuid == request.request_uuid();
  if (repeated || row.content_hash == content_hash) return ContinueSweep(batch, submission, existing->second, repeated);
  if (!request.update()) return reply(common::AlreadyExists(AlreadyDifferent(spec.name())));
  UpdateSweep(batch, submission, existing->second);
}

void Core::ReplyToSubmission(Batch& batch, std::shared_ptr<Submission> submission, int64_t sweep_id) {
  batch.deliveries.push_back([this, submission, sweep_id] {
    if (!submission->reply) return;
    v1::SubmitResponse response;
    *response.mutable_sweep() = SweepMessage(sweep_id);
    response.set_new_runs(submission->new_runs);
    response.set_reused_runs(static_cast<int64_t>(submission->cells.size()) - submission->new_runs);
    submission->reply(std::move(response));
  });
}

// The same content again: goes on where it stopped. What was cancelled is wanted again.
void Core::ContinueSweep(Batch& batch, std::shared_ptr<Submission> submission, int64_t sweep_id, bool repeated) {
  if (!repeated) {
    store::SweepRow& row = sweeps_.at(sweep_id);
    row.request_uuid = submission->row.request_uuid;
    batch.changed_sweeps.insert(sweep_id);
    batch.actions.sweeps.insert(sweep_id);
    std::vector<int64_t> revived;
    const auto wanted = store_->CellNames(sweep_id, true);
    const std::set<std::pair<std::string, int64_t>> still_wanted(wanted.begin(), wanted.end());
    for (const Cell& cell : submission->cells) {
      const int64_t run_id = store_->RunIdOf(cell.identity);
      // What a database of before these were stored does not know, or another planner sees otherwise.
      if (run_id != 0) Merge(batch, Step(state_, DevicesOfCell(cell, run_id), batch.boot_ms));
      if (run_id != 0 && !still_wanted.contains({cell.name, run_id})) revived.push_back(run_id);
    }
    for (int64_t run_id : revived) store_->SetWanted(sweep_id, run_id, true);
    Merge(batch, Step(state_, scheduler::AttachCells{sweep_id, revived}, batch.boot_ms));
    if (state_.sweeps.at(sweep_id).state == scheduler::SweepState::kCancelled)
      Merge(batch, Step(state_, scheduler::ChangeSweep{sweep_id, scheduler::SweepState::kActive}, batch.boot_ms));
  }
  ReplyToSubmission(batch, submission, sweep_id);
}

void Core::BeginSubmission(Batch& batch, std::shared_ptr<Submission> submission) {
  // One of that name that was cut off by a restart.
  for (const store::SweepRow& row : store_->Sweeps())
    if (row.state == "expanding" && row.name == submission->row.name) store_->DeleteSweep(row.sweep_id);
  submission->row.sweep_id = store_->NextSweepId();
  store_->PutSweep(submission->row);
  submissions_.push_back(std::move(submission));
}

// One step of expansion a batch, so that a large sweep does not hold up the workers.
void Core::RunSubmission(Batch& batch) {
  auto budget = static_cast<size_t>(options_.cells_per_transaction);
  while (!submissions_.empty() && budget > 0 && store_->status().ok()) {
    auto submission = submissions_.front();
    const size_t count = std::min(budget, submission->cells.size() - submission->next);
    AddCells(batch, *submission, count);
    budget -= count;
    if (submission->next < submission->cells.size()) return;
    submissions_.pop_front();
    // From here on the batch answers it, and it is no longer among those that a failure drops.
    batch.failures.push_back([submission](const Error& error) {
      if (submission->reply) submission->reply(error);
    });
    CompleteSubmission(batch, submission);
  }
}

void Core::AddCells(Batch& batch, Submission& submission, size_t count) {
  for (size_t end = submission.next + count; submission.next < end; ++submission.next) {
    const Cell& cell = submission.cells[submission.next];
    const int64_t run_id = AddRun(batch, submission, cell);
    store::CellRow row;
    row.sweep_id = submission.row.sweep_id;
    row.name = cell.name;
    row.run_id = run_id;
    row.position = submission.first_position + static_cast<int64_t>(submission.next);
    row.kind = store::KindName(KindOf(cell.kind));
    row.architecture = cell.architecture;
    row.size = cell.size;
    row.seed = cell.seed;
    row.tags_json = TagsToJson(cell.tags);
    store_->PutCell(row);
    submission.attached.push_back(run_id);
  }
}

int64_t Core::AddRun(Batch& batch, Submission& submission, const Cell& cell) {
  int64_t run_id = store_->RunIdOf(cell.identity);
  const scheduler::SetDevices devices = DevicesOfCell(cell, run_id);
  // The sweep that names a run last says on how many devices it is to go on.
  if (run_id != 0) Merge(batch, Step(state_, devices, batch.boot_ms));
  if (run_id == 0 && store_->status().ok()) {
    scheduler::Run run;
    run.id = run_id = static_cast<int64_t>(state_.runs.size()) + 1;
    run.kind = KindOf(cell.kind);
    run.flops = cell.costs.training_flops();
    run.steps = cell.costs.steps();
    run.memory_bytes = cell.costs.memory_bytes();
    run.replicated_bytes = devices.replicated_bytes;
    run.devices = devices.devices;
    run.most_devices = devices.most_devices;
    run.slots_per_gpu = devices.slots_per_gpu;
    run.gpu_whole_bytes = devices.gpu_whole_bytes;
    run.gpu_divided_bytes = devices.gpu_divided_bytes;
    run.trainer = state_.TrainerNumber(cell.trainer);
    store::NewRun row{&run, cell.identity, cell.trainer, cell.run_json, CostsToJson(cell.costs), cell.precision};
    row.created_unix_ms = batch.unix_ms;
    if (row.precision_asked.empty()) row.precision_asked = "auto";
    for (const CellParent& parent : cell.parents) {
      row.parents.push_back({parent.input_name, submission.runs.at(parent.identity)});
      run.parents.push_back(row.parents.back().parent_id);
    }
    std::ranges::sort(run.parents);
    run.parents.erase(std::unique(run.parents.begin(), run.parents.end()), run.parents.end());
    for (const v1::ManifestFile& file : cell.files)
      row.files.push_back({file.role(), file.name(), file.sha256(), file.bytes(), file.path()});
    store_->InsertRun(row);
    Step(state_, scheduler::AddRun{std::move(run)}, batch.boot_ms);
    submission.new_runs++;
  }
  submission.runs[cell.identity] = run_id;
  return run_id;
}

void Core::CompleteSubmission(Batch& batch, std::shared_ptr<Submission> submission) {
  if (!store_->status().ok()) return;  // run numbers mean nothing now; the batch fails
  store::SweepRow& row = submission->row;
  row.state = "active";
  scheduler::Sweep sweep;
  sweep.id = row.sweep_id;
  sweep.priority = row.priority;
  sweep.policy = submission->policy;
  sweep.budget_flops = row.budget_flops;
  sweeps_[row.sweep_id] = row;
  sweep_ids_[row.name] = row.sweep_id;
  Merge(batch, Step(state_, scheduler::AddSweep{std::move(sweep)}, batch.boot_ms));
  scheduler::Actions attached = Step(state_, scheduler::AttachCells{row.sweep_id, submission->attached}, batch.boot_ms);
  attached.runs.clear();  // nobody has watched them yet, and nothing that is stored has changed
  Merge(batch, std::move(attached));
  batch.changed_sweeps.insert(row.sweep_id);
  ReplyToSubmission(batch, submission, row.sweep_id);
}

// Adds the cells that are new, detaches those that are no longer named. Results stay.
void Core::UpdateSweep(Batch& batch, std::shared_ptr<Submission> submission, int64_t sweep_id) {
  store::SweepRow& row = sweeps_.at(sweep_id);
  const auto wanted = store_->CellNames(sweep_id, true);
  submission->row.sweep_id = sweep_id;
  submission->row.state = row.state;
  submission->row.spent_flops = row.spent_flops;
  submission->row.submitted_unix_ms = row.submitted_unix_ms;
  submission->row.finished_unix_ms = row.finished_unix_ms;
  submission->first_position = store_->LastPosition(sweep_id) + 1;
  for (const auto& [name, run_id] : wanted) store_->SetWanted(sweep_id, run_id, false);
  AddCells(batch, *submission, submission->cells.size());
  if (!store_->status().ok()) return;
  row = submission->row;
  const std::set<int64_t> kept(submission->attached.begin(), submission->attached.end());
  scheduler::DetachCells detach{sweep_id, {}};
  for (const auto& [name, run_id] : wanted)
    if (!kept.contains(run_id)) {
      detach.runs.push_back(run_id);
      batch.left_sweeps.insert({sweep_id, run_id});
    }
  Merge(batch, Step(state_, scheduler::ConfigureSweep{sweep_id, row.priority, submission->policy, row.budget_flops},
                    batch.boot_ms));
  Merge(batch, Step(state_, scheduler::AttachCells{sweep_id, submission->attached}, batch.boot_ms));
  Merge(batch, Step(state_, detach, batch.boot_ms));
  if (state_.sweeps.at(sweep_id).state == scheduler::SweepState::kCancelled)
    Merge(batch, Step(state_, scheduler::ChangeSweep{sweep_id, scheduler::SweepState::kActive}, batch.boot_ms));
  batch.changed_sweeps.insert(sweep_id);
  batch.actions.sweeps.insert(sweep_id);
  ReplyToSubmission(batch, submission, sweep_id);
}

Result<std::vector<int64_t>> Core::RunsOfCells(int64_t sweep_id, const std::string& sweep,
                                               const google::protobuf::RepeatedPtrField<std::string>& names) {
  std::vector<int64_t> runs;
  for (const std::string& given : names) {
    const std::string name = given.starts_with(sweep + "/") ? given.substr(sweep.size() + 1) : given;
    const auto cell = store_->CellByName(sweep_id, name);
    if (!cell) return common::NotFound("sweep '" + sweep + "' has no cell '" + name + "'");
    runs.push_back(cell->run_id);
  }
  return runs;
}

Result<int64_t> Core::ApplyImport(Batch& batch, const store::ImportedRow& row, bool replace) {
  const bool being_submitted =
      std::ranges::any_of(submissions_, [&](const auto& one) { return one->row.name == row.name; });
  if (sweep_ids_.contains(row.name) || being_submitted)
    return common::AlreadyExists("a sweep is called '" + row.name + "': choose another name");
  if (!replace && store_->HasImported(row.name))
    return common::AlreadyExists("there is an import '" + row.name +
                                 "': choose another name, or replace it with --replace");
  store_->PutImported(row, batch.unix_ms);
  return row.runs;
}

Result<v1::CancelResponse> Core::ApplyCancel(Batch& batch, const v1::CancelRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const int64_t sweep_id, SweepIdOf(request.sweep()));
  ALLO_ASSIGN_OR_RETURN(std::vector<int64_t> runs, RunsOfCells(sweep_id, request.sweep(), request.cells()));
  const scheduler::Counts before = state_.sweeps.at(sweep_id).counts;
  const auto cancelled = [&] {
    return std::ranges::count_if(state_.leases, [](const auto& lease) { return lease.second.cancelled; });
  };
  const int64_t cancelled_before = cancelled();
  v1::CancelResponse response;
  if (request.cells().empty()) {
    if (!state_.sweeps.at(sweep_id).finished())
      Merge(batch, Step(state_, scheduler::ChangeSweep{sweep_id, scheduler::SweepState::kCancelled}, batch.boot_ms));
    response.set_withdrawn(before.pending);
  } else {
    scheduler::DetachCells detach{sweep_id, WithDescendants(sweep_id, runs)};
    for (int64_t run_id : detach.runs) {
      store_->SetWanted(sweep_id, run_id, false);
      batch.left_sweeps.insert({sweep_id, run_id});
    }
    Merge(batch, Step(state_, detach, batch.boot_ms));
    response.set_withdrawn(before.pending - state_.sweeps.at(sweep_id).counts.pending);
  }
  response.set_stopped(cancelled() - cancelled_before);
  return response;
}

// Wanted cells of the sweep among the runs and all that depends on them, but for those that are done.
std::vector<int64_t> Core::WithDescendants(int64_t sweep_id, std::vector<int64_t> runs) const {
  std::set<int64_t> found;
  while (!runs.empty()) {
    const scheduler::Run& run = *state_.FindRun(runs.back());
    runs.pop_back();
    if (run.state == RunState::kDone || std::ranges::find(run.sweeps, sweep_id) == run.sweeps.end()) continue;
    if (!found.insert(run.id).second) continue;
    runs.insert(runs.end(), run.children.begin(), run.children.end());
  }
  return {found.begin(), found.end()};
}

// The runs that have to run again before this one can: itself, or what blocks it.
void Core::CollectRetries(const scheduler::Run& run, std::set<int64_t>* retries) const {
  if (run.state == RunState::kFailed || run.state == RunState::kDiverged) retries->insert(run.id);
  if (!run.blocked) return;
  for (int64_t id : run.parents) {
    const scheduler::Run& parent = *state_.FindRun(id);
    if (parent.state == RunState::kDone && !parent.keeps_outputs) retries->insert(id);
    CollectRetries(parent, retries);
  }
}

Result<v1::RetryResponse> Core::ApplyRetry(Batch& batch, const v1::RetryRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const int64_t sweep_id, SweepIdOf(request.sweep()));
  ALLO_ASSIGN_OR_RETURN(std::vector<int64_t> runs, RunsOfCells(sweep_id, request.sweep(), request.cells()));
  if (request.cells().empty())
    for (const auto& [name, run_id] : store_->CellNames(sweep_id, true)) runs.push_back(run_id);
  std::set<int64_t> retries;
  for (int64_t id : runs) CollectRetries(*state_.FindRun(id), &retries);
  // Named cells whose models the sweep wants, done for a sweep that did not.
  if (sweeps_.at(sweep_id).keep_models && !request.cells().empty())
    for (int64_t id : runs)
      if (const scheduler::Run& run = *state_.FindRun(id); run.state == RunState::kDone && !run.keeps_outputs)
        retries.insert(id);
  for (int64_t id : retries) {
    const RunState state = state_.FindRun(id)->state;
    if (state != RunState::kFailed) store_->PutCheckpoint(id, {});
    if (state == RunState::kDone) store_->DropResult(id);
    store_->RunEnded(id, "", 0);
  }
  Merge(batch, Step(state_, scheduler::RetryRuns{{retries.begin(), retries.end()}}, batch.boot_ms));
  v1::RetryResponse response;
  response.set_retried(static_cast<int64_t>(retries.size()));
  return response;
}

Result<int64_t> Core::ApplyPause(Batch& batch, const std::string& sweep, bool paused, bool kill_running) {
  ALLO_ASSIGN_OR_RETURN(const int64_t sweep_id, SweepIdOf(sweep));
  const scheduler::Sweep& now = state_.sweeps.at(sweep_id);
  if (paused && (now.finished() || now.state == scheduler::SweepState::kCancelled))
    return common::FailedPrecondition("sweep '" + sweep + "' is " + sweeps_.at(sweep_id).state +
                                      ": there is nothing to pause");
  const auto next = paused ? scheduler::SweepState::kPaused : scheduler::SweepState::kActive;
  Merge(batch, Step(state_, scheduler::ChangeSweep{sweep_id, next, kill_running}, batch.boot_ms));
  return sweep_id;
}

}  // namespace allometry::coordinator
