#include "worker/daemon/attempt.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/files.h"
#include "common/version.h"
#include "worker/daemon/host.h"
#include "worker/daemon/retry.h"

namespace allometry::worker {
namespace fs = std::filesystem;
using common::Json;
using v1::FinishRequest;
using v1::HeldLease;

namespace {

constexpr int64_t kTickMs = 50;
constexpr size_t kPointsAMessage = 20'000;  // 16 bytes each: well below gRPC's 4 MiB
constexpr int64_t kPointBytes = 20;
constexpr size_t kLogBytesAMessage = 256 << 10;
constexpr size_t kPointsInFinish = 20'000;
constexpr size_t kMaxRendezvousBytes = 4'096;

FinishRequest::Outcome OutcomeOf(ExitClass exit_class) {
  switch (exit_class) {
    case ExitClass::kDone:
      return FinishRequest::OUTCOME_DONE;
    case ExitClass::kStopped:
      return FinishRequest::OUTCOME_STOPPED;
    case ExitClass::kConfigError:
      return FinishRequest::OUTCOME_CONFIG_ERROR;
    case ExitClass::kDataError:
      return FinishRequest::OUTCOME_DATA_ERROR;
    case ExitClass::kDiverged:
      return FinishRequest::OUTCOME_DIVERGED;
    case ExitClass::kOutOfMemory:
      return FinishRequest::OUTCOME_OUT_OF_MEMORY;
    case ExitClass::kPeerLost:
      return FinishRequest::OUTCOME_PEER_LOST;
    case ExitClass::kDeviceLost:
      return FinishRequest::OUTCOME_DEVICE_LOST;
    case ExitClass::kDeviceFull:
      return FinishRequest::OUTCOME_DEVICE_FULL;
    case ExitClass::kDriverTooOld:
      return FinishRequest::OUTCOME_DRIVER_TOO_OLD;
    case ExitClass::kCollectiveTimeout:
      return FinishRequest::OUTCOME_COLLECTIVE_TIMEOUT;
    case ExitClass::kCrash:
      return FinishRequest::OUTCOME_CRASH;
    case ExitClass::kLimit:
      return FinishRequest::OUTCOME_LIMIT;
  }
  return FinishRequest::OUTCOME_CRASH;
}

// Whether another attempt may go on from this one's checkpoint.
bool MayGoOn(FinishRequest::Outcome outcome) {
  switch (outcome) {
    case FinishRequest::OUTCOME_STOPPED:
    case FinishRequest::OUTCOME_CRASH:
    case FinishRequest::OUTCOME_OUT_OF_MEMORY:
    case FinishRequest::OUTCOME_PEER_LOST:
    case FinishRequest::OUTCOME_DEVICE_LOST:
    case FinishRequest::OUTCOME_DEVICE_FULL:
    case FinishRequest::OUTCOME_DRIVER_TOO_OLD:
    case FinishRequest::OUTCOME_COLLECTIVE_TIMEOUT:
      return true;
    default:
      return false;
  }
}

// Text for a proto3 string: what is not UTF-8 would make the whole message unreadable to the other side.
std::string Utf8(const std::string& text) {
  const std::string dumped = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(dumped).get<std::string>();
}

}  // namespace

Attempt::Attempt(Services& services, const v1::Assignment& assignment, Place place, bool refuse)
    : services_(services),
      spec_(assignment.spec()),
      run_id_(assignment.run_id()),
      attempt_id_(assignment.attempt_id()),
      generation_(assignment.generation()),
      rank_(assignment.rank()),
      ranks_(std::max<int64_t>(1, assignment.ranks())),
      one_worker_(assignment.one_worker()),
      place_(std::move(place)),
      devices_lost_(services.devices_lost),
      refuse_(refuse),
      directory_(services.options.work_directory, run_id_, attempt_id_, rank_),
      tailer_(directory_.events_path()),
      rendezvous_(assignment.rendezvous()),
      metrics_(attempt_id_),
      stdout_(attempt_id_, StreamName("stdout"), directory_.stdout_path()),
      stderr_(attempt_id_, StreamName("stderr"), directory_.stderr_path()) {
  held_.set_run_id(run_id_);
  held_.set_attempt_id(attempt_id_);
  held_.set_generation(generation_);
  held_.set_phase(HeldLease::PHASE_FETCHING);
  held_.set_device(place_.device);
  held_.set_rank(rank_);
  thread_ = std::thread([this] { RunThread(); });
}

Attempt::~Attempt() { thread_.join(); }

std::string Attempt::StreamName(const char* stream) const {
  return rank_ > 0 ? "rank " + std::to_string(rank_) + " " + stream : stream;
}

void Attempt::RequestStop() { stop_ = true; }

void Attempt::SetRendezvous(const std::string& value) {
  std::lock_guard lock(mutex_);
  rendezvous_ = value;
}

void Attempt::Drop() { dropped_ = true; }

void Attempt::Abandon() {
  dropped_ = true;
  abandoned_ = true;
}

void Attempt::Report(uint64_t number, v1::SyncRequest* request, int64_t* room_bytes) {
  std::lock_guard lock(mutex_);
  *request->add_held() = held_;
  if (first_number_ == 0) first_number_ = number;
  if (*room_bytes <= 0) return;
  const auto room_points = static_cast<size_t>(*room_bytes / kPointBytes);
  *room_bytes -= kPointBytes * static_cast<int64_t>(metrics_.Collect(number, std::min(kPointsAMessage, room_points),
                                                                     request->mutable_metrics()));
  for (LogQueue* log : {&stderr_, &stdout_}) {
    if (*room_bytes <= 0) return;
    const size_t most = std::min(kLogBytesAMessage, static_cast<size_t>(*room_bytes));
    *room_bytes -= static_cast<int64_t>(log->Collect(number, most, request->mutable_logs()));
  }
}

void Attempt::Acknowledge(uint64_t number, int64_t sent_ms) {
  std::lock_guard lock(mutex_);
  if (first_number_ != 0 && number >= first_number_) lease_.Renew(sent_ms);
  metrics_.Acknowledge(number);
  stdout_.Acknowledge(number);
  stderr_.Acknowledge(number);
}

void Attempt::Rewind() {
  std::lock_guard lock(mutex_);
  metrics_.Rewind();
  stdout_.Rewind();
  stderr_.Rewind();
}

bool Attempt::HasPending() {
  std::lock_guard lock(mutex_);
  return metrics_.pending() || stdout_.pending() || stderr_.pending();
}

bool Attempt::Backlogged() {
  std::lock_guard lock(mutex_);
  const auto room = static_cast<int64_t>(kLogBytesAMessage);
  return (metrics_.pending() && metrics_.points() > kPointsAMessage) ||
         (stdout_.pending() && stdout_.unacknowledged_bytes() > room) ||
         (stderr_.pending() && stderr_.unacknowledged_bytes() > room);
}

Alive Attempt::WhileWanted() const {
  return [this] { return Wanted(); };
}

void Attempt::SetPhase(HeldLease::Phase phase) {
  {
    std::lock_guard lock(mutex_);
    held_.set_phase(phase);
  }
  services_.changed(true);
}

void Attempt::RunThread() {
  FinishRequest finish;
  try {
    finish = Execute();
  } catch (const std::exception& error) {  // one run's surprise must not end the others
    finish = Ended(FinishRequest::OUTCOME_CRASH, std::string("the worker failed: ") + error.what());
  }
  if (Wanted()) Deliver(std::move(finish));
  if (upload_.done.valid()) upload_.done.wait();
  directory_.RemoveSnapshots();
  if (rank_ > 0 && !refuse_) directory_.Clean();  // nothing goes on from what these leave
  ended_ = true;
  services_.changed(true);
}

FinishRequest Attempt::Ended(FinishRequest::Outcome outcome, const std::string& message) const {
  FinishRequest finish;
  finish.set_outcome(outcome);
  finish.set_exit_code(-1);
  finish.set_message(Utf8(message));
  return finish;
}

FinishRequest Attempt::Execute() {
  if (refuse_) return Ended(FinishRequest::OUTCOME_STOPPED, "given back: the worker takes nothing new");
  common::FaultPoint("worker.lease_taken");
  auto on_error = FinishRequest::OUTCOME_CRASH;
  auto trainer = PrepareTrainer(&on_error);
  if (Wanted() && stop_) return Ended(FinishRequest::OUTCOME_STOPPED, "stopped before the trainer was started");
  if (!trainer) return Ended(on_error, trainer.error().message);
  if (!WaitForLease()) return Ended(FinishRequest::OUTCOME_STOPPED, "stopped before the trainer was started");
  if (services_.devices_lost != devices_lost_)
    return Ended(FinishRequest::OUTCOME_STOPPED,
                 "given back: a GPU was lost before the trainer was started, and the others may have new numbers");
  auto id = services_.supervisor.Start(*trainer);
  if (!id) return Ended(FinishRequest::OUTCOME_CRASH, id.error().message);
  common::FaultPoint("worker.trainer_started");
  spdlog::info("run {} attempt {}: {} started on {}", run_id_, attempt_id_, spec_.cell(), place_.device);
  next_upload_ms_ = common::BootMillis() + services_.checkpoint_upload_interval_ms;
  SetPhase(HeldLease::PHASE_RUNNING);
  const ProcessEnd end = Supervise(*id);
  common::FaultPoint("worker.trainer_ended");
  const bool has_result = has_result_ || rank_ > 0;  // the result is rank 0's
  const ExitClass exit_class = Classify(end, has_result);
  std::string message = exit_class == ExitClass::kDone ? "" : DescribeEnd(end, has_result);
  if (lease_lost_) message = "the coordinator was out of reach until the lease ended; " + message;
  if (tailer_.dropped_lines() > 0 && exit_class != ExitClass::kDone)
    message += "\n" + std::to_string(tailer_.dropped_lines()) + " event lines dropped: " + tailer_.dropped_reason();
  // The probe is the built-in trainer's: a driver that is too old for another one is no fault of the devices.
  if (exit_class == ExitClass::kDeviceLost || exit_class == ExitClass::kDeviceFull ||
      (exit_class == ExitClass::kDriverTooOld && TrainerName() == "builtin"))
    services_.device_failed(place_.slot, exit_class, Utf8(TellingLine(end.stderr_tail)));
  FinishRequest finish = Ended(OutcomeOf(exit_class), message);
  finish.set_exit_code(end.exit_code);
  finish.set_signal(end.signal);
  finish.set_device_seconds(end.seconds);
  if (exit_class == ExitClass::kOutOfMemory) finish.set_micro_batch(micro_batch_);
  spdlog::info("run {} attempt {}: {}", run_id_, attempt_id_, ExitClassName(exit_class));
  return finish;
}

std::string Attempt::TrainerName() const { return spec_.trainer().empty() ? "builtin" : spec_.trainer(); }

Json Attempt::BaseExecution() const {
  const auto share = std::max<int64_t>(1, int64_t{services_.options.threads_per_slot} * place_.parts / kParts);
  const int64_t threads = spec_.threads() > 0 ? spec_.threads() : share;
  Json execution = {{"run_id", std::to_string(run_id_)},
                    {"attempt", attempt_id_},
                    {"device", place_.device},
                    {"threads", threads},
                    {"precision", spec_.precision().empty() ? "auto" : spec_.precision()},
                    {"inputs", Json::object()},
                    {"files", Json::object()},
                    {"keep_final", spec_.keep_outputs()},
                    {"checkpoint_interval_s", services_.options.checkpoint_interval_s}};
  if (spec_.micro_batch() > 0) execution["micro_batch"] = spec_.micro_batch();
  if (spec_.activation_checkpointing()) execution["activation_checkpointing"] = true;
  if (place_.kernels && TrainerName() == "builtin") {
    execution["kernels"] = true;
    execution["graphs"] = place_.graphs;
  }
  if (place_.parts < kParts) execution["device_share"] = static_cast<double>(place_.parts) / kParts;
  if (ranks_ > 1) {
    execution["rank"] = rank_;
    execution["ranks"] = ranks_;
    execution["rendezvous"] = directory_.rendezvous_path().string();
    execution["listen"] = one_worker_ ? "127.0.0.1" : services_.options.address;
  }
  return execution;
}

common::Result<TrainerSpec> Attempt::PrepareTrainer(FinishRequest::Outcome* on_error) {
  const std::string name = TrainerName();
  auto command = services_.options.trainers.find(name);
  *on_error = FinishRequest::OUTCOME_CONFIG_ERROR;
  if (command == services_.options.trainers.end())
    return common::InvalidArgument("trainer '" + name + "' is not allowed on this worker; start it with --trainer " +
                                   name + "=<command>");
  *on_error = FinishRequest::OUTCOME_CRASH;
  ALLO_RETURN_IF_ERROR(directory_.Prepare(spec_.identity()));
  Json execution = BaseExecution();
  *on_error = FinishRequest::OUTCOME_LOST_INPUT;
  ALLO_RETURN_IF_ERROR(FetchInputs(&execution));
  *on_error = FinishRequest::OUTCOME_CONFIG_ERROR;
  ALLO_RETURN_IF_ERROR(directory_.WriteRunJson(spec_.run_json(), execution));
  TrainerSpec trainer;
  trainer.command = command->second;
  trainer.command.insert(trainer.command.end(), {"--config", "run.json"});
  trainer.run_directory = directory_.path();
  trainer.environment = {{"ALLOMETRY_EVENTS", directory_.events_path().string()},
                         {"ALLOMETRY_RUN_DIR", directory_.path().string()},
                         {"ALLOMETRY_CONTRACT", "1"},
                         {"OMP_NUM_THREADS", execution["threads"].dump()}};
  trainer.stdout_path = directory_.stdout_path();
  trainer.stderr_path = directory_.stderr_path();
  trainer.limit_seconds = spec_.limit_seconds();
  trainer.limit_memory_bytes = spec_.limit_memory_bytes();
  trainer.grace_ms = services_.options.grace_s * 1000;
  return trainer;
}

common::Status Attempt::FetchInputs(Json* execution) {
  ALLO_RETURN_IF_ERROR(FetchRawFiles(&(*execution)["files"]));
  for (const auto& input : spec_.inputs()) {
    if (!IsSafeRelativePath(input.name()) || input.name().find('/') != std::string::npos)
      return common::InvalidArgument("'" + input.name() + "' is no name for an input");
    const fs::path target = directory_.path() / "inputs" / input.name();
    ALLO_RETURN_IF_ERROR(PlaceOutput(input.output(), target));
    (*execution)["inputs"][input.name()] = target.string();
  }
  return FetchCheckpoint(execution);
}

common::Status Attempt::FetchRawFiles(Json* files) {
  for (const auto& file : spec_.files()) {
    auto found = services_.files.Find(file.sha256(), file.bytes(), file.name(), file.path());
    if (!found) found = services_.blobs.Fetch(file.sha256(), file.bytes(), [this] { return Going(); });
    if (!found) return found.error();
    (*files)[file.sha256()] = found->string();
  }
  return common::Ok();
}

common::Status Attempt::PlaceOutput(const v1::Output& output, const fs::path& target) {
  std::error_code ec;
  fs::remove_all(target, ec);
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(target));
  for (const auto& file : output.files()) {
    if (!IsSafeRelativePath(file.path()))
      return common::InvalidArgument("'" + file.path() + "' is no place in an output's folder");
    ALLO_ASSIGN_OR_RETURN(auto blob, services_.blobs.Fetch(file.sha256(), file.bytes(), [this] { return Going(); }));
    ALLO_RETURN_IF_ERROR(PlaceFile(blob, target / file.path()));
  }
  return common::Ok();
}

// The run directory's own checkpoint, unless an uploaded one is further.
common::Status Attempt::FetchCheckpoint(Json* execution) {
  if (rank_ > 0) return common::Ok();  // rank 0 loads it and tells the others
  newest_ = directory_.NewestCheckpoint();
  const auto& uploaded = spec_.checkpoint();
  if (!uploaded.name().empty()) uploaded_step_ = spec_.checkpoint_step();
  if (uploaded.files_size() > 0 && spec_.checkpoint_step() > newest_.step) {
    const fs::path target = directory_.path() / "resume";
    ALLO_RETURN_IF_ERROR(PlaceOutput(uploaded, target));
    // All paths of a checkpoint start with its own file or folder name.
    (*execution)["resume"] = (target / *fs::path(uploaded.files(0).path()).begin()).string();
  } else if (newest_) {
    (*execution)["resume"] = newest_.path.string();
  }
  return common::Ok();
}

// Until the coordinator has acknowledged that we hold the lease: before that nobody can say how long it lasts.
bool Attempt::WaitForLease() {
  const LeaseTimings timings = TimingsFor(services_.lease_ttl_ms, services_.options.grace_s * 1000);
  services_.changed(true);
  return SleepWhile(INT32_MAX,
                    [&] {
                      std::lock_guard lock(mutex_);
                      return Going() && lease_.ActionAt(common::BootMillis(), timings) != LeaseAction::kRun;
                    }) ||
         Going();
}

ProcessEnd Attempt::Supervise(Supervisor::TrainerId id) {
  for (int tick = 0;; ++tick) {
    auto end = services_.supervisor.TakeEnd(id);
    if (end) {
      TailEvents(/*to_the_end=*/true);
      return *end;
    }
    TailEvents(/*to_the_end=*/false);
    ActOnStops(id);
    PassRendezvous();
    if (tick % 10 == 0 && HasPending()) services_.changed(false);  // logs make no events
    if (common::BootMillis() >= next_upload_ms_) StartCheckpointUpload(/*at_stop=*/false);
    std::this_thread::sleep_for(std::chrono::milliseconds(kTickMs));
  }
}

void Attempt::ActOnStops(Supervisor::TrainerId id) {
  LeaseAction action;
  {
    std::lock_guard lock(mutex_);
    action =
        lease_.ActionAt(common::BootMillis(), TimingsFor(services_.lease_ttl_ms, services_.options.grace_s * 1000));
  }
  const bool lease_ends = action == LeaseAction::kTerminate || action == LeaseAction::kKill;
  if ((lease_ends || stop_ || dropped_) && !stop_sent_) {
    stop_sent_ = true;
    lease_lost_ = lease_ends;
    if (lease_ends)
      spdlog::warn("run {} attempt {}: the lease ends unrenewed, stopping the trainer", run_id_, attempt_id_);
    services_.supervisor.Stop(id);
    SetPhase(HeldLease::PHASE_STOPPING);
  }
  // The attempt is over, and of this rank there is nothing to save: it may not even hear us while it waits for others.
  const bool over = dropped_ && rank_ > 0;
  if ((action == LeaseAction::kKill || abandoned_ || over) && !kill_sent_) {
    kill_sent_ = true;
    services_.supervisor.Kill(id);
  }
}

// Again after an error: the disk may have been full.
void Attempt::PassRendezvous() {
  std::string value;
  {
    std::lock_guard lock(mutex_);
    value = rendezvous_;
  }
  if (value.empty() || rank_ == 0) return;
  if (auto written = directory_.WriteRendezvous(value); !written.ok())
    return spdlog::warn("run {} attempt {}: {}", run_id_, attempt_id_, written.error().message);
  std::lock_guard lock(mutex_);
  if (rendezvous_ == value) rendezvous_.clear();
}

// While the queue is full the file itself is the queue. At the trainer's end all is read: what counts stands at the
// end.
void Attempt::TailEvents(bool to_the_end) {
  for (;;) {
    if (!to_the_end) {
      std::lock_guard lock(mutex_);
      if (metrics_.full()) return;
    }
    const int64_t dropped_before = tailer_.dropped_lines();
    const bool read = tailer_.Poll([this](int64_t offset, const Json& event) { OnEvent(offset, event); }, 1 << 20);
    if (tailer_.dropped_lines() > dropped_before)
      spdlog::warn("run {} attempt {}: dropped an event: {}", run_id_, attempt_id_, tailer_.dropped_reason());
    if (!read) return;
    services_.changed(false);
  }
}

void Attempt::OnEvent(int64_t offset, const Json& event) {
  const std::string& kind = event["event"].get_ref<const std::string&>();
  std::lock_guard lock(mutex_);
  if (kind == "out_of_memory") micro_batch_ = IntegerOr(event, "micro_batch", 0);
  if (rank_ > 0) return;
  if (kind == "start") {
    started_ = true;
    held_.set_precision(Utf8(TextOr(event, "precision", "")));
    held_.set_resumed_step(IntegerOr(event, "resumed_step", 0));
    held_.set_step(std::max(held_.step(), held_.resumed_step()));
    if (event.contains("provenance") && event["provenance"].is_object()) provenance_ = event["provenance"];
  } else if (kind == "progress") {
    held_.set_step(IntegerOr(event, "step", held_.step()));
    held_.set_steps(IntegerOr(event, "steps", held_.steps()));
    held_.set_loss(NumberOr(event, "loss", held_.loss()));
    held_.set_tokens_per_second(NumberOr(event, "tokens_per_second", held_.tokens_per_second()));
  } else if (kind == "metric") {
    if (event.contains("values") && event["values"].is_object())
      metrics_.Add(offset, IntegerOr(event, "step", 0), event["values"]);
  } else if (kind == "checkpoint") {
    auto path = directory_.Resolve(TextOr(event, "path", ""));
    const int64_t step = IntegerOr(event, "step", 0);
    if (path && step >= newest_.step) newest_ = {step, *path};
  } else if (kind == "rendezvous") {
    OnRendezvous(event);
  } else if (kind == "result") {
    result_ = event;
    has_result_ = true;
  }
}

// Called with the lock held.
void Attempt::OnRendezvous(const Json& event) {
  const std::string value = TextOr(event, "value", "");
  if (value.size() > kMaxRendezvousBytes || Utf8(value) != value) {
    spdlog::warn("run {} attempt {}: a rendezvous is UTF-8 text of at most {} bytes", run_id_, attempt_id_,
                 kMaxRendezvousBytes);
    return;
  }
  held_.set_rendezvous(value);
}

void Attempt::StartCheckpointUpload(bool at_stop) {
  if (upload_.done.valid()) {
    if (!at_stop && upload_.done.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
    if (upload_.done.get()) uploaded_step_ = std::max(uploaded_step_, upload_.step);
  }
  next_upload_ms_ = common::BootMillis() + services_.checkpoint_upload_interval_ms;
  if (!newest_ || newest_.step <= uploaded_step_) return;
  auto snapshot = directory_.Snapshot(newest_);
  if (!snapshot) {
    // The trainer replaced it meanwhile; the next one is announced any moment.
    next_upload_ms_ = common::BootMillis() + 1000;
    return;
  }
  LocalCheckpoint checkpoint{newest_.step, *snapshot};
  upload_.step = checkpoint.step;
  upload_.done = std::async(std::launch::async, [this, checkpoint] { return UploadCheckpoint(checkpoint); });
}

bool Attempt::UploadCheckpoint(const LocalCheckpoint& checkpoint) {
  auto package = PackFiles("checkpoint", checkpoint.path, checkpoint.path.filename().string());
  common::Status status = package ? UploadPackage(services_.client, *package, WhileWanted()) : package.error();
  if (status.ok()) {
    v1::ReportCheckpointRequest request;
    request.set_worker_id(services_.worker_id);
    request.set_run_id(run_id_);
    request.set_attempt_id(attempt_id_);
    request.set_generation(generation_);
    request.set_step(checkpoint.step);
    *request.mutable_checkpoint() = package->output;
    auto answer = RetryWhile(WhileWanted(), [&] {
      request.set_worker_id(services_.worker_id);
      return services_.client.ReportCheckpoint(request);
    });
    if (!answer) status = answer.error();
  }
  if (!status.ok() && Wanted())
    spdlog::warn("run {} attempt {}: checkpoint of step {} not uploaded: {}", run_id_, attempt_id_, checkpoint.step,
                 status.error().message);
  std::error_code ec;
  fs::remove_all(checkpoint.path.parent_path(), ec);
  return status.ok();
}

void Attempt::Deliver(FinishRequest finish) {
  SetPhase(HeldLease::PHASE_FINISHING);
  if (finish.outcome() == FinishRequest::OUTCOME_DONE && rank_ == 0) {
    if (auto status = UploadOutputs(&finish); !status.ok() && Wanted()) {
      finish.set_outcome(FinishRequest::OUTCOME_CRASH);
      finish.set_message(Utf8("the outputs could not be kept: " + status.error().message));
      finish.clear_outputs();
    } else {
      finish.set_result_json(result_.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
  } else if (MayGoOn(finish.outcome()) && !refuse_ && rank_ == 0) {
    StartCheckpointUpload(/*at_stop=*/true);
    if (upload_.done.valid()) upload_.done.wait();
  }
  DrainReports();
  SendFinish(std::move(finish));
}

common::Status Attempt::UploadOutputs(FinishRequest* finish) {
  if (!result_.contains("outputs") || !result_["outputs"].is_object()) return common::Ok();
  for (const auto& [name, folder] : result_["outputs"].items()) {
    if (!spec_.keep_outputs() && name != "predictions") continue;
    if (!folder.is_string()) return common::InvalidArgument("output '" + name + "' is no text");
    ALLO_ASSIGN_OR_RETURN(const fs::path path, directory_.Resolve(folder.get<std::string>()));
    ALLO_ASSIGN_OR_RETURN(Package package, PackFiles(name, path, ""));
    ALLO_RETURN_IF_ERROR(UploadPackage(services_.client, package, WhileWanted()));
    *finish->add_outputs() = package.output;
    packages_.push_back(std::move(package));
  }
  return common::Ok();
}

// Lets Sync carry what does not fit into Finish.
void Attempt::DrainReports() {
  SleepWhile(INT32_MAX, [this] {
    std::lock_guard lock(mutex_);
    return Wanted() && (metrics_.points() > kPointsInFinish ||
                        stdout_.unacknowledged_bytes() > static_cast<int64_t>(kLogBytesAMessage) ||
                        stderr_.unacknowledged_bytes() > static_cast<int64_t>(kLogBytesAMessage));
  });
}

void Attempt::SendFinish(FinishRequest finish) {
  finish.set_run_id(run_id_);
  finish.set_attempt_id(attempt_id_);
  finish.set_generation(generation_);
  finish.set_rank(rank_);
  Json provenance = provenance_;
  provenance["worker"] = HostFacts(services_.options);
  provenance["worker"]["device"] = place_.device;
  finish.set_provenance_json(provenance.dump(-1, ' ', false, Json::error_handler_t::replace));
  {
    std::lock_guard lock(mutex_);
    finish.set_last_step(held_.step());
    if (started_) finish.set_resumed_step(held_.resumed_step());
    // Numbered beyond any message: what is collected here is not sent by Sync as well, and it is idempotent if it was.
    metrics_.Rewind();
    metrics_.Collect(UINT64_MAX, kPointsInFinish, finish.mutable_metrics());
    for (LogQueue* log : {&stdout_, &stderr_}) {
      log->Rewind();
      log->Collect(UINT64_MAX, kLogBytesAMessage, finish.mutable_logs());
    }
  }
  Backoff backoff;
  for (;;) {
    finish.set_worker_id(services_.worker_id);
    auto answer = services_.client.Finish(finish);
    if (answer) {
      common::FaultPoint("worker.finish_answered");
      if (!answer->accepted())
        spdlog::warn("run {} attempt {}: the result is not wanted: {}", run_id_, attempt_id_, answer->reason());
      if (answer->accepted() && finish.outcome() == FinishRequest::OUTCOME_DONE) {
        for (const auto& package : packages_) {
          for (const auto& [sha256, path] : package.path_of) (void)services_.blobs.Adopt(path, sha256);
        }
      }
      const bool over = !MayGoOn(finish.outcome()) && finish.outcome() != FinishRequest::OUTCOME_LOST_INPUT;
      if (answer->accepted() && over) directory_.Clean();
      return;
    }
    spdlog::warn("run {} attempt {}: {}", run_id_, attempt_id_, answer.error().message);
    if (answer.error().code == common::ErrorCode::kInvalidArgument) return;  // the same message can never be right
    if (answer.error().code == common::ErrorCode::kFailedPrecondition) {
      for (const auto& package : packages_) (void)UploadPackage(services_.client, package, WhileWanted());
    }
    if (!SleepWhile(backoff.NextMs(), WhileWanted())) return;
  }
}

}  // namespace allometry::worker
