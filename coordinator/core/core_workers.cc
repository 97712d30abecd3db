#include <algorithm>
#include <limits>

#include "common/fault_point.h"
#include "common/json.h"
#include "coordinator/core/core_internal.h"

// Registration, sync, results and checkpoints.
namespace allometry::coordinator {
namespace {

using common::Json;
using common::Result;
using scheduler::Outcome;

constexpr int kProtocol = 3;  // 2: attempts of several ranks; 3: devices by number, and parts of them
constexpr size_t kMaxRendezvousBytes = 4'096;
constexpr int kMaxSlots = 4'096;  // and devices

Outcome OutcomeOf(v1::FinishRequest::Outcome outcome) {
  switch (outcome) {
    case v1::FinishRequest::OUTCOME_DONE:
      return Outcome::kDone;
    case v1::FinishRequest::OUTCOME_STOPPED:
      return Outcome::kStopped;
    case v1::FinishRequest::OUTCOME_CONFIG_ERROR:
      return Outcome::kConfigError;
    case v1::FinishRequest::OUTCOME_DATA_ERROR:
      return Outcome::kDataError;
    case v1::FinishRequest::OUTCOME_DIVERGED:
      return Outcome::kDiverged;
    case v1::FinishRequest::OUTCOME_OUT_OF_MEMORY:
      return Outcome::kOutOfMemory;
    case v1::FinishRequest::OUTCOME_LIMIT:
      return Outcome::kLimit;
    case v1::FinishRequest::OUTCOME_LOST_INPUT:
      return Outcome::kLostInput;
    case v1::FinishRequest::OUTCOME_PEER_LOST:
      return Outcome::kPeerLost;
    case v1::FinishRequest::OUTCOME_DEVICE_LOST:
      return Outcome::kDeviceLost;
    case v1::FinishRequest::OUTCOME_DEVICE_FULL:
      return Outcome::kDeviceFull;
    case v1::FinishRequest::OUTCOME_DRIVER_TOO_OLD:
      return Outcome::kDriverTooOld;
    case v1::FinishRequest::OUTCOME_COLLECTIVE_TIMEOUT:
      return Outcome::kCollectiveTimeout;
    default:
      return Outcome::kCrash;
  }
}

// At most so many as there may be slots.
std::string StringsJson(const google::protobuf::RepeatedPtrField<std::string>& strings) {
  const auto end = strings.begin() + std::min(strings.size(), kMaxSlots);
  return Json(std::vector<std::string>(strings.begin(), end)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

store::WorkerRow RowOf(const v1::RegisterRequest& request, int64_t worker_id, int64_t unix_ms) {
  store::WorkerRow row;
  row.worker_id = worker_id;
  row.worker_uuid = request.worker_uuid();
  row.name = request.name().empty() ? "worker-" + std::to_string(worker_id) : request.name();
  row.host = request.host();
  row.state = "lost";  // until its first sync
  row.slots = std::clamp(request.slots(), 0, kMaxSlots);
  row.threads_per_slot = request.threads_per_slot();
  row.memory_bytes = std::max<int64_t>(0, request.memory_bytes());
  row.devices_json = StringsJson(request.devices());
  row.trainers_json = StringsJson(request.trainers());
  row.version = request.version();
  row.provenance_json = request.provenance_json().empty() ? "{}" : request.provenance_json();
  row.registered_unix_ms = row.last_seen_unix_ms = unix_ms;
  row.directory_uuid = request.directory_uuid();
  Json memory = Json::array();
  for (int i = 0; i < std::min(request.device_memory_bytes_size(), kMaxSlots); ++i)
    memory.push_back(std::max<int64_t>(0, request.device_memory_bytes(i)));
  row.device_memory_json = memory.dump();
  row.protocol = kProtocol;
  return row;
}

scheduler::WorkerSynced ReportOf(const v1::SyncRequest& request) {
  scheduler::WorkerSynced report;
  report.worker_id = request.worker_id();
  report.acknowledged = request.acknowledged();
  report.draining = request.draining();
  report.leaving = request.leaving();
  for (const v1::DeviceFault& fault : request.faults())
    report.faults[fault.device()] = OneLine(fault.reason().empty() ? "out of service" : fault.reason());
  for (const v1::HeldLease& held : request.held())
    report.held.push_back({held.attempt_id(), held.generation(), !held.precision().empty() || held.step() > 0,
                           held.resumed_step(), held.step(), held.loss(), held.tokens_per_second(),
                           static_cast<int>(held.rank()),
                           held.rendezvous().size() <= kMaxRendezvousBytes ? held.rendezvous() : std::string()});
  return report;
}

std::vector<store::FileRow> FilesOf(const v1::Output& output) {
  std::vector<store::FileRow> files;
  for (const v1::BlobFile& file : output.files())
    files.push_back({output.name(), file.path(), file.sha256(), file.bytes()});
  return files;
}

const v1::Output* CheckpointIn(const v1::FinishRequest& request) {
  for (const v1::Output& output : request.outputs())
    if (output.name() == "checkpoint") return &output;
  return nullptr;
}

std::string MemberOr(const Json& object, const char* key, const char* otherwise) {
  const auto member = object.find(key);
  return member == object.end() ? otherwise : member->dump();
}

// A done run without a readable result is what the trainer contract calls a crash.
void CheckResult(v1::FinishRequest* request) {
  if (request->outcome() != v1::FinishRequest::OUTCOME_DONE || request->rank() > 0) return;
  if (Json::parse(request->result_json(), nullptr, false).is_object()) return;
  request->set_outcome(v1::FinishRequest::OUTCOME_CRASH);
  request->set_message("the result is not a JSON object");
}

// What the attempt holds, of a device that it shares its part.
double DevicesHeld(const scheduler::Lease& lease) {
  int parts = 0;
  for (const scheduler::Placement& placement : lease.placements) parts += placement.parts;
  return static_cast<double>(parts) / scheduler::kPartsOfDevice;
}

// All ranks hold their devices until the attempt's end, so the one that tells it tells the time of each.
store::AttemptEnd EndOf(const v1::FinishRequest& request, double devices, bool accepted) {
  return {accepted, request.exit_code(), request.signal(), request.device_seconds() * devices,
          request.provenance_json().empty() ? "{}" : request.provenance_json()};
}

}  // namespace

Result<v1::RegisterResponse> Core::ApplyRegister(Batch& batch, const v1::RegisterRequest& request) {
  if (request.worker_uuid().empty()) return common::InvalidArgument("a worker registers with a worker_uuid");
  if (!request.cluster_id().empty() && request.cluster_id() != cluster_id_)
    return common::FailedPrecondition("this is cluster " + cluster_id_ + ", the worker belongs to " +
                                      request.cluster_id() +
                                      ": check the address, or start the worker without its cluster id");
  if (request.protocol_min() > kProtocol || request.protocol_max() < kProtocol)
    return common::FailedPrecondition("the coordinator speaks worker protocol " + std::to_string(kProtocol) +
                                      ", the worker " + std::to_string(request.protocol_min()) + " to " +
                                      std::to_string(request.protocol_max()) + ": update the older of the two");
  int64_t worker_id = store_->WorkerIdOf(request.worker_uuid());
  if (worker_id == 0) {
    ReplaceWorker(batch, request);
    worker_id = store_->NextWorkerId();
  }
  const auto known = workers_.find(worker_id);
  store::WorkerRow row = RowOf(request, worker_id, batch.unix_ms);
  if (known != workers_.end() && state_.workers.contains(worker_id)) row.state = known->second.state;
  batch.removed_workers.erase(worker_id);
  store_->PutWorker(row);
  const auto before = state_.workers.find(worker_id);
  scheduler::Worker worker = WorkerOf(row, state_, batch.boot_ms);
  worker.connected = before != state_.workers.end() && before->second.connected;
  workers_[worker_id] = std::move(row);
  Merge(batch, Step(state_, scheduler::WorkerJoined{std::move(worker)}, batch.boot_ms));

  v1::RegisterResponse response;
  response.set_worker_id(worker_id);
  response.set_cluster_id(cluster_id_);
  response.set_protocol(kProtocol);
  response.set_lease_ttl_ms(options_.lease_ttl_ms);
  response.set_renew_interval_ms(options_.renew_interval_ms);
  response.set_checkpoint_upload_interval_ms(options_.checkpoint_upload_interval_ms);
  return response;
}

// A process that takes the place of one that has gone: what the old one held is free at once, not a lease later. A
// connection can outlive its process for a while, so "not connected" is no proof where the directory is known.
void Core::ReplaceWorker(Batch& batch, const v1::RegisterRequest& request) {
  for (const auto& [id, row] : workers_) {
    const auto worker = state_.workers.find(id);
    if (worker == state_.workers.end() || row.host != request.host()) continue;
    const bool same_directory = !request.directory_uuid().empty() && row.directory_uuid == request.directory_uuid();
    const bool same_name = !request.name().empty() && row.name == request.name();
    if (!same_directory && !(same_name && !worker->second.connected)) continue;
    batch.removed_workers.insert(id);
    sessions_.erase(id);
    Merge(batch, Step(state_, scheduler::WorkerGone{id}, batch.boot_ms));
  }
}

Result<v1::DrainWorkerResponse> Core::ApplyDrain(Batch& batch, const v1::DrainWorkerRequest& request) {
  for (const auto& [id, row] : workers_) {
    if (!state_.workers.contains(id) || (row.name != request.worker() && std::to_string(id) != request.worker()))
      continue;
    Merge(batch, Step(state_, scheduler::DrainWorker{id, request.now()}, batch.boot_ms));
    v1::DrainWorkerResponse response;
    *response.mutable_worker() = WorkerMessage(row);
    return response;
  }
  return common::NotFound("no worker '" + request.worker() + "': `allo workers list` names them");
}

template <typename Message>
void Core::KeepMetricsAndLogs(const Message& message, int64_t worker_id) {
  int64_t checked = 0;
  auto is_its_own = [&](int64_t attempt_id) {
    if (attempt_id != checked && !store_->AttemptIsOf(attempt_id, worker_id)) return false;
    checked = attempt_id;
    return true;
  };
  for (const v1::MetricChunk& chunk : message.metrics())
    if (chunk.steps_size() == chunk.values_size() && is_its_own(chunk.attempt_id()))
      store_->AddMetrics(chunk.attempt_id(), chunk.sequence(), chunk.series(),
                         {chunk.steps().begin(), chunk.steps().end()}, {chunk.values().begin(), chunk.values().end()});
  for (const v1::LogPart& part : message.logs())
    if (!part.data().empty() && is_its_own(part.attempt_id()))
      store_->AddLog(part.attempt_id(), part.stream(), part.offset(), part.data());
}

void Core::FixPrecision(const v1::HeldLease& held) {
  if (precision_known_.insert(held.attempt_id()).second) store_->SetPrecision(held.run_id(), held.precision());
}

bool Core::ApplySync(Batch& batch, const v1::SyncRequest& request) {
  const auto row = workers_.find(request.worker_id());
  if (row == workers_.end() || row->second.worker_uuid != request.worker_uuid() ||
      !state_.workers.contains(request.worker_id()))
    return false;
  // Of before an upgrade of the coordinator: Register says what is wrong.
  if (row->second.protocol != kProtocol) return false;
  Session& session = sessions_[request.worker_id()];
  batch.answered_workers.insert(request.worker_id());
  row->second.last_seen_unix_ms = batch.unix_ms;
  // A message that was doubled or overtaken says nothing new.
  if (request.number() <= session.last_request) return true;
  session.last_request = request.number();
  session.connected = !request.leaving();
  KeepMetricsAndLogs(request, request.worker_id());
  for (const v1::HeldLease& held : request.held()) {
    if (scheduler::CurrentLease(state_, held.run_id(), held.attempt_id(), held.generation()) == nullptr) continue;
    if (!held.precision().empty() && held.rank() == 0) FixPrecision(held);
    batch.progressed_runs.insert(held.run_id());
  }
  Merge(batch, Step(state_, ReportOf(request), batch.boot_ms));
  if (request.leaving()) batch.removed_workers.insert(request.worker_id());
  return true;
}

template <typename Outputs>
common::Status Core::RequireBlobs(const Outputs& outputs) const {
  for (const v1::Output& output : outputs)
    for (const v1::BlobFile& file : output.files())
      if (!options_.has_blob(file.sha256()))
        return common::FailedPrecondition("blob " + file.sha256() + " of output '" + output.name() +
                                          "' is not here: upload it, then try again");
  return common::Ok();
}

// The stored answer to an attempt that has ended.
v1::FinishResponse Core::AnswerOfClosed(const v1::FinishRequest& request) {
  v1::FinishResponse response;
  const auto attempt = store_->Attempt(request.attempt_id());
  const bool same = attempt && attempt->run_id == request.run_id() && attempt->generation == request.generation();
  // A gang's attempt may have been ended by another rank, whose end was accepted: that is no word on this one's result.
  const bool result = request.outcome() == v1::FinishRequest::OUTCOME_DONE && request.rank() == 0;
  response.set_accepted(same && attempt->accepted && (!result || attempt->outcome == "done"));
  if (!same)
    response.set_reason("there is no such attempt");
  else if (!response.accepted())
    response.set_reason("the attempt ended as '" + attempt->outcome + "': " + attempt->message);
  return response;
}

int64_t Core::BatchSequencesOf(int64_t run_id) {
  const Json run = Json::parse(store_->TextOf(run_id).run_json, nullptr, false);
  if (!run.is_object()) return 0;
  const auto member = run.find("batch_sequences");
  return member != run.end() && member->is_number_integer() ? member->get<int64_t>() : 0;
}

Result<v1::FinishResponse> Core::ApplyFinish(Batch& batch, v1::FinishRequest request) {
  KeepMetricsAndLogs(request, request.worker_id());
  CheckResult(&request);
  const int64_t run_id = request.run_id();
  const scheduler::Lease* lease = scheduler::CurrentLease(state_, run_id, request.attempt_id(), request.generation());
  if (lease == nullptr) return AnswerOfClosed(request);
  const double devices = DevicesHeld(*lease);
  if (request.rank() < 0 || static_cast<size_t>(request.rank()) >= lease->placements.size())
    return common::InvalidArgument("attempt " + std::to_string(request.attempt_id()) + " has no rank " +
                                   std::to_string(request.rank()));
  if (request.rank() > 0) {  // rank 0 speaks of these
    request.clear_outputs();
    request.clear_provenance_json();
  }
  ALLO_RETURN_IF_ERROR(RequireBlobs(request.outputs()));
  const Outcome outcome = OutcomeOf(request.outcome());
  const Json provenance = Json::parse(request.provenance_json(), nullptr, false);
  if (provenance.is_object() && provenance.contains("precision") && provenance["precision"].is_string())
    store_->SetPrecision(run_id, provenance["precision"].get<std::string>());
  if (const v1::Output* checkpoint = CheckpointIn(request); checkpoint != nullptr && outcome != Outcome::kDone)
    KeepCheckpoint(batch, {run_id, request.attempt_id(), request.generation(), request.last_step()}, *checkpoint);

  scheduler::AttemptFinished finished;
  finished.run_id = run_id;
  finished.attempt_id = request.attempt_id();
  finished.generation = request.generation();
  finished.outcome = outcome;
  finished.last_step = request.last_step();
  if (request.has_resumed_step()) finished.resumed_step = request.resumed_step();
  // Predictions are kept of every run, and no other run needs them.
  finished.keeps_outputs = std::ranges::any_of(
      request.outputs(), [](const v1::Output& o) { return o.name() != "checkpoint" && o.name() != "predictions"; });
  finished.message = request.message();
  finished.rank = static_cast<int>(request.rank());
  if (outcome == Outcome::kOutOfMemory) {
    finished.micro_batch = std::min<int64_t>(request.micro_batch(), std::numeric_limits<int32_t>::max());
    finished.batch_sequences = BatchSequencesOf(run_id);
  }
  scheduler::Actions actions = Step(state_, finished, batch.boot_ms);
  const bool accepted = actions.accepted;
  if (accepted && outcome == Outcome::kDone && request.rank() == 0) AcceptResult(request);
  common::FaultPoint("coordinator.finish_applied");
  v1::FinishResponse response;
  response.set_accepted(accepted);
  if (!accepted) response.set_reason("the run was cancelled");
  const store::AttemptEnd end = EndOf(request, devices, accepted);
  if (actions.noted && outcome == Outcome::kPeerLost) noted_ends_.emplace(request.attempt_id(), end);
  Merge(batch, std::move(actions), end);
  return response;
}

void Core::AcceptResult(const v1::FinishRequest& request) {
  const Json result = Json::parse(request.result_json(), nullptr, false);
  store::ResultRow row;
  row.run_id = request.run_id();
  row.attempt_id = request.attempt_id();
  row.event = last_event_ + 1;  // of this batch, or earlier than its own: never later
  row.metrics_json = MemberOr(result, "metrics", "{}");
  row.scores_json = MemberOr(result, "scores", "[]");
  row.report_json = MemberOr(result, "report", "{}");
  store_->PutResult(row);
  std::vector<store::FileRow> files;
  for (const v1::Output& output : request.outputs())
    if (output.name() != "checkpoint") std::ranges::move(FilesOf(output), std::back_inserter(files));
  store_->PutOutputs(request.run_id(), files);
  store_->PutCheckpoint(request.run_id(), {});
  store_->SetAcceptedAttempt(request.run_id(), request.attempt_id());
}

bool Core::KeepCheckpoint(Batch& batch, const scheduler::CheckpointReported& report, const v1::Output& checkpoint) {
  scheduler::Actions actions = Step(state_, report, batch.boot_ms);
  const bool accepted = actions.accepted;
  // The files of the newest one only: an older report changes nothing.
  if (actions.runs.contains(report.run_id)) store_->PutCheckpoint(report.run_id, FilesOf(checkpoint));
  Merge(batch, std::move(actions));
  return accepted;
}

Result<v1::ReportCheckpointResponse> Core::ApplyCheckpoint(Batch& batch, const v1::ReportCheckpointRequest& request) {
  const scheduler::CheckpointReported report{request.run_id(), request.attempt_id(), request.generation(),
                                             request.step()};
  v1::ReportCheckpointResponse response;
  if (scheduler::CurrentLease(state_, report.run_id, report.attempt_id, report.generation) == nullptr) return response;
  ALLO_RETURN_IF_ERROR(RequireBlobs(std::vector<v1::Output>{request.checkpoint()}));
  response.set_accepted(KeepCheckpoint(batch, report, request.checkpoint()));
  return response;
}

Result<v1::SyncResponse> Core::OrdersFor(int64_t worker_id) {
  Session& session = sessions_[worker_id];
  v1::SyncResponse response;
  response.set_number(response_base_ + ++session.last_response);
  response.set_acknowledged(session.last_request);
  const auto worker = state_.workers.find(worker_id);
  response.set_drain(worker != state_.workers.end() && worker->second.draining);
  for (auto& [id, lease] : state_.leases)
    for (size_t rank = 0; rank < lease.placements.size(); ++rank)
      if (lease.placements[rank].worker_id == worker_id && !lease.placements[rank].finished)
        AddAssignment(lease, rank, &response);
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  return response;
}

void Core::AddAssignment(scheduler::Lease& lease, size_t rank, v1::SyncResponse* response) {
  scheduler::Placement& placement = lease.placements[rank];
  v1::Assignment* assignment = response->add_desired();
  assignment->set_run_id(lease.run_id);
  assignment->set_attempt_id(lease.attempt_id);
  assignment->set_generation(lease.generation);
  assignment->set_stop(lease.stop || lease.rank_stopped);
  if (!placement.seen) *assignment->mutable_spec() = SpecOf(lease);
  if (placement.device >= 0) {
    assignment->set_device(placement.device);
    assignment->set_device_parts(placement.parts);
  }
  if (placement.ordered_in == 0) placement.ordered_in = response->number();
  if (!lease.gang()) return;
  assignment->set_rank(static_cast<int64_t>(rank));
  assignment->set_ranks(static_cast<int64_t>(lease.placements.size()));
  assignment->set_one_worker(
      std::ranges::all_of(lease.placements, [&](const auto& p) { return p.worker_id == placement.worker_id; }));
  if (rank == 0 || placement.told || lease.rendezvous.empty()) return;
  assignment->set_rendezvous(lease.rendezvous);
  if (placement.told_in == 0) placement.told_in = response->number();
}

v1::RunSpec Core::SpecOf(const scheduler::Lease& lease) {
  const scheduler::Run& run = *state_.FindRun(lease.run_id);
  const store::SweepRow& sweep = sweeps_.at(lease.sweep_id);
  const store::RunText text = store_->TextOf(run.id);
  v1::RunSpec spec;
  spec.set_kind(static_cast<v1::RunKind>(run.kind));
  spec.set_trainer(state_.trainers[run.trainer]);
  spec.set_run_json(text.run_json);
  spec.set_cell(store_->AnyCellName(run.id, lease.sweep_id));
  spec.set_identity(text.identity);
  for (const store::ParentRow& parent : store_->ParentsOf(run.id)) {
    v1::Input* input = spec.add_inputs();
    input->set_name(parent.input_name);
    *input->mutable_output() = OutputOf(parent.input_name, store_->OutputsOf(parent.parent_id, parent.input_name));
  }
  for (const store::FileRow& row : store_->RawFilesOf(run.id)) {
    v1::ManifestFile* file = spec.add_files();
    file->set_role(row.name);
    file->set_name(row.path);
    file->set_bytes(row.bytes);
    file->set_sha256(row.sha256);
    file->set_path(row.hint);
  }
  spec.set_precision(text.precision.empty() ? "auto" : text.precision);
  spec.set_micro_batch(run.micro_batch);
  spec.set_limit_seconds(sweep.limit_seconds);
  spec.set_limit_memory_bytes(sweep.limit_memory_bytes);
  spec.set_threads(sweep.limit_threads);
  spec.set_activation_checkpointing(sweep.activation_checkpointing);
  if (run.checkpoint_step > 0) {
    *spec.mutable_checkpoint() = OutputOf("checkpoint", store_->CheckpointOf(run.id));
    spec.set_checkpoint_step(run.checkpoint_step);
  }
  spec.set_keep_outputs(run.kind == scheduler::Kind::kPrepare || !run.children.empty() || sweep.keep_models);
  return spec;
}

}  // namespace allometry::coordinator
