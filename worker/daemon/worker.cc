#include "worker/daemon/worker.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "common/clock.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "common/version.h"
#include "worker/daemon/attempt.h"
#include "worker/daemon/host.h"
#include "worker/daemon/reconcile.h"
#include "worker/daemon/retry.h"

namespace allometry::worker {
namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

constexpr int kProtocol = 3;
constexpr int64_t kMessageRoomBytes = 1 << 20;  // metrics and logs of one Sync message
constexpr int64_t kUrgentPauseMs = 20, kNewsPauseMs = 500;
constexpr size_t kMaxUnacknowledged = 16;
constexpr size_t kMaxEnded = 10'000;
constexpr int64_t kUnusedBlobSeconds = 7 * 24 * 3600;
constexpr int kMostComparisons = 2;  // of kernels on a GPU that comes back, if the first gives no answer

common::Error MakeRegisterError(const common::Error& error, const std::string& coordinator) {
  return {error.code, "cannot register with " + coordinator + ": " + error.message};
}

// The uuid in the file, made when it is not there.
common::Result<std::string> KeptUuid(const fs::path& path) {
  if (auto kept = common::ReadFile(path); kept && !kept->empty()) return *kept;
  const std::string made = common::RandomUuid();
  ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(path, made));
  return made;
}

RankId IdOf(const v1::Assignment& assignment) { return {assignment.attempt_id(), assignment.rank()}; }

}  // namespace

class Worker::Impl {
 public:
  explicit Impl(WorkerOptions options) : options_(std::move(options)) {}

  common::Status Start();
  void RequestDrain();
  void Stop();
  void Kill();
  common::Status Join();
  bool running() const { return running_; }

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Stream = CoordinatorClient::SyncStream;

  void FillDefaults();
  void LinkThread();
  bool Register();
  v1::RegisterRequest RegisterMessage() const;
  bool Session();  // one stream, to its end; false when the coordinator never answered on it
  void ReadResponses(Stream* stream);
  void OnResponse(const v1::SyncResponse& response);
  void ApplyDesired(const v1::SyncResponse& response);
  std::vector<HeldAttempt> Held() const;
  void StartAttempt(const v1::Assignment& assignment, bool refuse);
  void Refuse(RankId waiting_id);
  void PassRendezvous(RankId id, const std::string& value);
  void StartWaiting();
  v1::SyncRequest NextMessage(bool leaving);
  bool SendDue(int64_t now_ms) const;
  bool Stalled(int64_t now_ms) const;
  bool WantsToLeave() const;
  bool HoldsNothing() const { return attempts_.empty() && waiting_.empty(); }
  bool Over() const { return killed_ || fatal_ || (WantsToLeave() && HoldsNothing()); }
  void Tick(Lock& lock, int64_t ms);
  void ReapEnded(Lock& lock);
  void GiveUpStoppingIfAlone(Lock& lock);
  void KillLocked();
  int FreeSlots() const;
  bool HasDevice(const v1::Assignment& assignment) const;
  bool IsOutOfService(const v1::Assignment& assignment) const;
  Place PlaceFor(const v1::Assignment& assignment) const;  // slot -1: there is no room now
  void DeviceFailed(int slot, ExitClass exit_class, const std::string& words);
  void ProbeFaulty();
  void HoldUntilCompared(const std::vector<Device>& before, bool probe_failed);
  void LogComparison(const Device& device) const;
  void Leave(Stream* stream, Lock& lock);

  WorkerOptions options_;
  const std::string uuid_ = common::RandomUuid();
  std::optional<common::FileLock> directory_lock_;
  std::string directory_uuid_;
  std::unique_ptr<CoordinatorClient> client_;
  std::unique_ptr<Supervisor> supervisor_;
  std::unique_ptr<BlobCache> blobs_;
  std::unique_ptr<FileFinder> files_;
  std::unique_ptr<Services> services_;
  std::atomic<bool> running_{false};

  std::mutex mutex_;  // guards what follows; taken before an attempt's own
  std::condition_variable wake_;
  std::map<RankId, std::shared_ptr<Attempt>> attempts_;
  std::map<RankId, v1::Assignment> waiting_;  // leases held until a slot, and their run's directory, are free
  std::set<RankId> ended_;
  std::vector<Device> devices_;  // one a slot; empty: CPU slots
  std::vector<int> free_parts_;  // of each slot
  std::unique_ptr<Probe> probe_;
  bool probe_is_stale_ = false;                     // a device failed since it was started
  std::optional<size_t> comparing_, compare_next_;  // the device on which it, or the next one, compares kernels
  bool numbers_in_doubt_ = false;  // a device was lost: CUDA may number the others anew, which the next probe tells
  int64_t next_probe_ms_ = 0;
  SentLedger ledger_;
  uint64_t next_number_ = 1, last_applied_ = 0;
  bool registered_ = false, stream_over_ = false, answered_ = false;
  bool urgent_ = false, news_ = false;
  bool draining_ = false, stopping_ = false, killed_ = false, fatal_ = false;
  int64_t renew_interval_ms_ = 10'000;
  int64_t last_sent_ms_ = 0, last_heard_ms_ = 0, stop_requested_ms_ = 0, idle_since_ms_ = 0;
  common::Status ending_;
  std::thread thread_;
};

void Worker::Impl::FillDefaults() {
  std::error_code ec;
  options_.work_directory = fs::absolute(options_.work_directory, ec).lexically_normal();
  // The same after a restart, so that people know it again.
  if (options_.name.empty())
    options_.name = HostName() + ":" + common::Sha256Hex(options_.work_directory.string()).substr(0, 6);
  options_.slots = std::max(1, options_.slots);
  // Trainers run in another directory: a program given by a relative path must not be looked for there.
  for (auto& [name, command] : options_.trainers) {
    for (auto& word : command) {
      if (word.find('/') != std::string::npos && fs::exists(word, ec)) word = fs::absolute(word, ec).string();
    }
  }
}

common::Status Worker::Impl::Start() {
  FillDefaults();
  if (options_.trainers.empty())
    return common::InvalidArgument("the worker allows no trainer; give it --trainer name=command");
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(options_.work_directory / "blobs"));
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(options_.work_directory / "runs"));
  auto lock = common::FileLock::Acquire(options_.work_directory / "worker.lock");
  if (!lock)
    return common::Error{lock.error().code, "the work directory '" + options_.work_directory.string() +
                                                "' is in use: " + lock.error().message +
                                                "; stop that worker or give this one another directory"};
  directory_lock_ = std::move(*lock);
  ALLO_ASSIGN_OR_RETURN(directory_uuid_, KeptUuid(options_.work_directory / "worker.uuid"));
  ALLO_ASSIGN_OR_RETURN(client_, CoordinatorClient::Create(options_));
  supervisor_ = std::make_unique<Supervisor>();
  blobs_ = std::make_unique<BlobCache>(options_.work_directory / "blobs", *client_);
  blobs_->RemoveUnused(kUnusedBlobSeconds);
  files_ = std::make_unique<FileFinder>(options_.data_roots);
  probe_ = std::make_unique<Probe>(options_, *supervisor_);
  const std::vector<std::string> compare{"--check-kernels"};
  if (probe_->Start(options_.use_kernels ? compare : std::vector<std::string>{})) devices_ = probe_->Wait();
  for (const Device& device : devices_) LogComparison(device);
  for (const Device& device : devices_)
    if (!device.fault.empty()) spdlog::error("{} is out of service: {}", device.description, device.fault);
  free_parts_.assign(devices_.empty() ? static_cast<size_t>(options_.slots) : devices_.size(), kParts);
  if (options_.threads_per_slot <= 0)
    options_.threads_per_slot =
        std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / static_cast<int>(free_parts_.size()));
  auto changed = [this](bool urgent) {
    std::lock_guard guard(mutex_);
    (urgent ? urgent_ : news_) = true;
    if (urgent) wake_.notify_all();
  };
  auto device_failed = [this](int slot, ExitClass exit_class, const std::string& words) {
    DeviceFailed(slot, exit_class, words);
  };
  services_.reset(new Services{options_, *client_, *supervisor_, *blobs_, *files_, changed, device_failed});
  idle_since_ms_ = common::BootMillis();
  running_ = true;
  thread_ = std::thread([this] { LinkThread(); });
  return common::Ok();
}

void Worker::Impl::RequestDrain() {
  std::lock_guard lock(mutex_);
  draining_ = urgent_ = true;
  wake_.notify_all();
}

void Worker::Impl::Stop() {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  stopping_ = urgent_ = true;
  stop_requested_ms_ = common::BootMillis();
  for (auto& [id, attempt] : attempts_) attempt->RequestStop();
  wake_.notify_all();
}

void Worker::Impl::Kill() {
  std::lock_guard lock(mutex_);
  KillLocked();
}

void Worker::Impl::KillLocked() {
  killed_ = true;
  waiting_.clear();
  for (auto& [id, attempt] : attempts_) attempt->Abandon();
  if (client_) client_->CancelAll();
  wake_.notify_all();
}

common::Status Worker::Impl::Join() {
  if (thread_.joinable()) thread_.join();
  return ending_;
}

bool Worker::Impl::WantsToLeave() const {
  const bool idle_too_long = options_.idle_timeout_s > 0 && HoldsNothing() &&
                             common::BootMillis() - idle_since_ms_ >= options_.idle_timeout_s * 1000;
  return draining_ || stopping_ || idle_too_long;
}

void Worker::Impl::LinkThread() {
  Backoff backoff;
  for (;;) {
    {
      Lock lock(mutex_);
      if (Over()) break;
    }
    const bool registered = registered_ || Register();
    if (registered && Session()) backoff.Reset();
    Lock lock(mutex_);
    const int64_t until_ms = common::BootMillis() + backoff.NextMs();
    while (!Over() && common::BootMillis() < until_ms) Tick(lock, until_ms - common::BootMillis());
  }
  Lock lock(mutex_);
  for (auto& [id, attempt] : attempts_) attempt->Abandon();
  while (!attempts_.empty()) Tick(lock, 50);
  lock.unlock();
  services_.reset();
  probe_.reset();
  supervisor_.reset();
  directory_lock_.reset();
  running_ = false;
}

// Waits for news or so long, and clears away attempts that have ended. Called with the lock held.
void Worker::Impl::Tick(Lock& lock, int64_t ms) {
  wake_.wait_for(lock, milliseconds(std::clamp<int64_t>(ms, 1, 200)));
  ReapEnded(lock);
  ProbeFaulty();
  StartWaiting();
  GiveUpStoppingIfAlone(lock);
}

void Worker::Impl::ReapEnded(Lock& lock) {
  std::vector<std::shared_ptr<Attempt>> gone;
  for (auto it = attempts_.begin(); it != attempts_.end();) {
    if (!it->second->ended()) {
      ++it;
      continue;
    }
    if (const Place& place = it->second->place(); place.slot >= 0)
      free_parts_[static_cast<size_t>(place.slot)] += place.parts;
    ended_.insert(it->first);
    if (ended_.size() > kMaxEnded) ended_.erase(ended_.begin());  // ids count up: the oldest
    gone.push_back(std::move(it->second));
    it = attempts_.erase(it);
    idle_since_ms_ = common::BootMillis();
    urgent_ = true;
  }
  if (gone.empty()) return;
  // Their threads may want the lock for a last word before they can be joined.
  lock.unlock();
  gone.clear();
  lock.lock();
}

// A worker that was told to stop does not wait for a coordinator that may never come back.
void Worker::Impl::GiveUpStoppingIfAlone(Lock&) {
  const int64_t now_ms = common::BootMillis();
  if (!stopping_ || killed_ || HoldsNothing()) return;
  const int64_t patience_ms = options_.grace_s * 1000 + 5'000;
  if (now_ms - stop_requested_ms_ < patience_ms || now_ms - last_heard_ms_ < patience_ms) return;
  spdlog::warn("the coordinator is out of reach: leaving with {} attempts unreported", attempts_.size());
  KillLocked();
}

v1::RegisterRequest Worker::Impl::RegisterMessage() const {
  v1::RegisterRequest request;
  request.set_worker_uuid(uuid_);
  request.set_name(options_.name);
  request.set_cluster_id(options_.cluster_id);
  request.set_protocol_min(kProtocol);
  request.set_protocol_max(kProtocol);
  request.set_version(common::kVersion);
  request.set_host(HostName());
  request.set_slots(static_cast<int32_t>(free_parts_.size()));
  request.set_threads_per_slot(options_.threads_per_slot);
  request.set_memory_bytes(MemoryBytes());
  for (const auto& device : devices_) {
    request.add_devices(device.description);
    request.add_device_memory_bytes(device.memory_bytes);
  }
  for (const auto& [name, command] : options_.trainers) request.add_trainers(name);
  request.set_provenance_json(HostFacts(options_).dump());
  request.set_directory_uuid(directory_uuid_);
  return request;
}

bool Worker::Impl::Register() {
  auto answer = client_->Register(RegisterMessage());
  Lock lock(mutex_);
  if (!answer) {
    const bool final = !WorthRetrying(answer.error());
    if (final && !killed_) {
      ending_ = MakeRegisterError(answer.error(), options_.coordinator);
      fatal_ = true;
    } else if (!killed_) {
      spdlog::debug("{}", MakeRegisterError(answer.error(), options_.coordinator).message);
    }
    return false;
  }
  registered_ = true;
  last_heard_ms_ = common::BootMillis();
  options_.cluster_id = answer->cluster_id();  // whoever answers here later must be the same
  services_->worker_id = answer->worker_id();
  if (answer->lease_ttl_ms() > 0) services_->lease_ttl_ms = answer->lease_ttl_ms();
  if (answer->checkpoint_upload_interval_ms() > 0)
    services_->checkpoint_upload_interval_ms = answer->checkpoint_upload_interval_ms();
  if (answer->renew_interval_ms() > 0) renew_interval_ms_ = answer->renew_interval_ms();
  spdlog::info("registered with {} as worker {} ({} slots)", options_.coordinator, answer->worker_id(),
               free_parts_.size());
  return true;
}

bool Worker::Impl::SendDue(int64_t now_ms) const {
  if (ledger_.waiting() >= kMaxUnacknowledged) return false;
  const int64_t since_ms = now_ms - last_sent_ms_;
  return (urgent_ && since_ms >= kUrgentPauseMs) || (news_ && since_ms >= kNewsPauseMs) ||
         since_ms >= renew_interval_ms_;
}

bool Worker::Impl::Stalled(int64_t now_ms) const {
  const auto oldest_ms = ledger_.OldestWaiting();
  return oldest_ms && now_ms - std::max(*oldest_ms, last_heard_ms_) > std::max<int64_t>(3 * renew_interval_ms_, 2'000);
}

v1::SyncRequest Worker::Impl::NextMessage(bool leaving) {
  v1::SyncRequest request;
  request.set_worker_id(services_->worker_id);
  request.set_worker_uuid(uuid_);
  request.set_number(next_number_++);
  request.set_acknowledged(last_applied_);
  int64_t room_bytes = kMessageRoomBytes;
  bool more = false;
  for (auto& [id, attempt] : attempts_) {
    if (attempt->ended()) continue;
    attempt->Report(request.number(), &request, &room_bytes);
    more |= attempt->HasPending();
  }
  for (const auto& [id, assignment] : waiting_) {
    auto* held = request.add_held();
    held->set_run_id(assignment.run_id());
    held->set_attempt_id(id.attempt_id);
    held->set_rank(id.rank);
    held->set_generation(assignment.generation());
    held->set_phase(v1::HeldLease::PHASE_FETCHING);
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i].fault.empty()) continue;
    auto* fault = request.add_faults();
    fault->set_device(static_cast<int32_t>(i));
    fault->set_reason(devices_[i].fault);
  }
  request.set_draining(draining_ || stopping_);
  request.set_leaving(leaving);
  request.set_free_slots(FreeSlots());
  urgent_ = false;
  news_ = more;
  last_sent_ms_ = common::BootMillis();
  ledger_.Sent(request.number(), last_sent_ms_);
  return request;
}

bool Worker::Impl::Session() {
  CoordinatorClient::Call call(*client_);
  auto stream = client_->OpenSync(call);
  Lock lock(mutex_);
  ledger_ = SentLedger();
  last_applied_ = 0;
  stream_over_ = answered_ = false;
  urgent_ = true;
  last_sent_ms_ = 0;
  lock.unlock();
  std::thread reader([this, &stream] { ReadResponses(stream.get()); });
  lock.lock();
  while (!stream_over_ && !killed_ && !fatal_) {
    const int64_t now_ms = common::BootMillis();
    if (Over()) {
      Leave(stream.get(), lock);
      break;
    }
    if (Stalled(now_ms)) {
      spdlog::warn("no answer from {}: connecting anew", options_.coordinator);
      break;
    }
    if (!SendDue(now_ms)) {
      Tick(lock, urgent_ ? kUrgentPauseMs : 50);
      continue;
    }
    const v1::SyncRequest request = NextMessage(false);
    lock.unlock();
    const bool written = stream->Write(request);
    lock.lock();
    if (!written) break;
  }
  lock.unlock();
  call.context.TryCancel();
  reader.join();
  const auto status = stream->Finish();
  lock.lock();
  for (auto& [id, attempt] : attempts_) attempt->Rewind();
  if (!answered_) spdlog::debug("stream to {} ended: {}", options_.coordinator, status.error_message());
  const auto refused = status.error_code();
  if (refused == grpc::StatusCode::UNAUTHENTICATED || refused == grpc::StatusCode::PERMISSION_DENIED ||
      refused == grpc::StatusCode::NOT_FOUND || refused == grpc::StatusCode::FAILED_PRECONDITION)
    registered_ = false;  // Register says what is wrong, or mends it
  return answered_;
}

// The last message: nothing held, about to go. Waits a little for its answer.
void Worker::Impl::Leave(Stream* stream, Lock& lock) {
  const v1::SyncRequest request = NextMessage(true);
  lock.unlock();
  stream->Write(request);
  stream->WritesDone();
  lock.lock();
  wake_.wait_for(lock, milliseconds(2'000), [this] { return stream_over_ || killed_ || ledger_.waiting() == 0; });
}

void Worker::Impl::ReadResponses(Stream* stream) {
  v1::SyncResponse response;
  while (stream->Read(&response)) OnResponse(response);
  std::lock_guard lock(mutex_);
  stream_over_ = true;
  wake_.notify_all();
}

void Worker::Impl::OnResponse(const v1::SyncResponse& response) {
  std::lock_guard lock(mutex_);
  if (stream_over_ || killed_ || response.number() <= last_applied_) return;
  last_applied_ = response.number();
  answered_ = true;
  last_heard_ms_ = common::BootMillis();
  if (response.reregister()) {
    registered_ = false;
    stream_over_ = true;
    wake_.notify_all();
    return;
  }
  if (const auto sent_ms = ledger_.Acknowledge(response.acknowledged())) {
    for (auto& [id, attempt] : attempts_) {
      attempt->Acknowledge(response.acknowledged(), *sent_ms);
      news_ |= attempt->HasPending();
      urgent_ |= attempt->Backlogged();
    }
  }
  draining_ |= response.drain();
  ApplyDesired(response);
  wake_.notify_all();
}

std::vector<HeldAttempt> Worker::Impl::Held() const {
  std::vector<HeldAttempt> held;
  for (const auto& [id, attempt] : attempts_) held.push_back({id, attempt->run_id(), attempt->generation()});
  for (const auto& [id, assignment] : waiting_) held.push_back({id, assignment.run_id(), assignment.generation()});
  return held;
}

void Worker::Impl::ApplyDesired(const v1::SyncResponse& response) {
  std::vector<WantedAttempt> wanted;
  std::map<RankId, const v1::Assignment*> by_id;
  for (const auto& assignment : response.desired()) {
    const RankId id = IdOf(assignment);
    by_id[id] = &assignment;
    wanted.push_back({id, assignment.run_id(), assignment.generation(), assignment.stop(), assignment.has_spec()});
    if (!assignment.rendezvous().empty()) PassRendezvous(id, assignment.rendezvous());
  }
  const Changes changes = Compare(Held(), wanted, ended_, !WantsToLeave());
  for (RankId id : changes.stop) waiting_.count(id) ? Refuse(id) : attempts_.at(id)->RequestStop();
  for (RankId id : changes.drop) {
    if (waiting_.erase(id) == 0) attempts_.at(id)->Drop();
  }
  for (RankId id : changes.take) waiting_[id] = *by_id.at(id);
  for (RankId id : changes.refuse) StartAttempt(*by_id.at(id), /*refuse=*/true);
  urgent_ |= !changes.take.empty();
  StartWaiting();
}

void Worker::Impl::PassRendezvous(RankId id, const std::string& value) {
  if (auto attempt = attempts_.find(id); attempt != attempts_.end()) attempt->second->SetRendezvous(value);
  if (auto waiting = waiting_.find(id); waiting != waiting_.end()) waiting->second.set_rendezvous(value);
}

void Worker::Impl::Refuse(RankId waiting_id) {
  StartAttempt(waiting_.at(waiting_id), /*refuse=*/true);
  waiting_.erase(waiting_id);
}

void Worker::Impl::StartWaiting() {
  if (waiting_.empty()) return;
  std::vector<HeldAttempt> waiting;
  std::map<int64_t, int64_t> busy_runs;
  for (const auto& [id, assignment] : waiting_) waiting.push_back({id, assignment.run_id(), assignment.generation()});
  for (const auto& [id, attempt] : attempts_) busy_runs[attempt->run_id()] = id.attempt_id;
  if (WantsToLeave()) {
    for (const auto& attempt : waiting) Refuse(attempt.id);
    return;
  }
  // Where devices have numbers each lease waits for its own.
  const int most = devices_.empty() ? FreeSlots() : static_cast<int>(waiting.size());
  for (RankId id : Startable(waiting, busy_runs, most)) {
    const v1::Assignment& assignment = waiting_.at(id);
    const bool refuse = IsOutOfService(assignment);
    if (!refuse && PlaceFor(assignment).slot < 0) continue;
    StartAttempt(assignment, refuse);
    waiting_.erase(id);
  }
}

bool Worker::Impl::HasDevice(const v1::Assignment& assignment) const {
  return assignment.has_device() && assignment.device() >= 0 &&
         assignment.device() < static_cast<int32_t>(devices_.size());
}

// The coordinator had not heard of it yet.
bool Worker::Impl::IsOutOfService(const v1::Assignment& assignment) const {
  return HasDevice(assignment) && !devices_[static_cast<size_t>(assignment.device())].fault.empty();
}

Place Worker::Impl::PlaceFor(const v1::Assignment& assignment) const {
  if (numbers_in_doubt_) return {};
  const int parts = assignment.device_parts() > 0 ? std::min(assignment.device_parts(), kParts) : kParts;
  for (size_t slot = 0; slot < free_parts_.size(); ++slot) {
    if (HasDevice(assignment) && static_cast<int32_t>(slot) != assignment.device()) continue;
    if (free_parts_[slot] < parts || (!devices_.empty() && !devices_[slot].fault.empty())) continue;
    if (devices_.empty()) return {static_cast<int>(slot), parts};
    return {static_cast<int>(slot), parts, devices_[slot].name, devices_[slot].kernels, devices_[slot].graphs};
  }
  return {};
}

void Worker::Impl::DeviceFailed(int slot, ExitClass exit_class, const std::string& words) {
  std::lock_guard guard(mutex_);
  const char* what = exit_class == ExitClass::kDeviceFull     ? kDeviceFull
                     : exit_class == ExitClass::kDriverTooOld ? kDriverTooOld
                                                              : kDeviceLost;
  for (size_t i = 0; i < devices_.size(); ++i) {
    const bool meant = static_cast<int>(i) == slot || exit_class == ExitClass::kDriverTooOld;
    if (!meant || !devices_[i].fault.empty()) continue;
    devices_[i].fault = what + words;
    spdlog::error("{} is out of service: {}", devices_[i].description, devices_[i].fault);
  }
  const bool lost = exit_class == ExitClass::kDeviceLost && !devices_.empty();
  numbers_in_doubt_ |= lost;
  if (lost) ++services_->devices_lost;
  probe_is_stale_ = probe_->running();
  if (std::exchange(comparing_, std::nullopt)) probe_->Kill();  // the others wait for the next probe
  next_probe_ms_ = common::BootMillis() + (numbers_in_doubt_ ? 0 : options_.probe_interval_s * 1000);
  urgent_ = true;
}

// A device that comes back and of which it is not known how kernels fare computes as others of its kind do. The first
// of a kind stays out of service until a probe has compared them there; the second one without an answer is the last.
void Worker::Impl::HoldUntilCompared(const std::vector<Device>& before, bool probe_failed) {
  if (const auto asked = std::exchange(comparing_, std::nullopt); asked && !devices_[*asked].compared) {
    Device& device = devices_[*asked];
    const bool was_asked = device.fault.empty() && device.name == before[*asked].name;
    if ((probe_failed || was_asked) && ++device.unanswered == kMostComparisons)
      device.why_not = "comparing them gave no answer";
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    Device& device = devices_[i];
    const bool returns = !before[i].fault.empty() && device.fault.empty();
    if (!returns || !options_.use_kernels || device.compared || device.unanswered == kMostComparisons) continue;
    const auto like = std::ranges::find_if(
        devices_, [&](const Device& other) { return other.compared && other.model == device.model; });
    if (like != devices_.end()) {
      TakeComparison(*like, &device);
      continue;
    }
    device.fault = before[i].fault;
    compare_next_ = i;
  }
}

void Worker::Impl::LogComparison(const Device& device) const {
  if (device.fault.empty() && !device.why_not.empty())
    spdlog::warn("{} computes without {}: {}", device.description, device.kernels ? "graphs" : "the project's kernels",
                 device.why_not);
}

// Looks again at devices that are out of service, now and then. Called with the lock held.
void Worker::Impl::ProbeFaulty() {
  if (const auto found = probe_->Take(); found && !std::exchange(probe_is_stale_, false)) {
    const std::vector<Device> before = devices_;
    std::vector<bool> busy;
    for (int parts : free_parts_) busy.push_back(parts < kParts);
    TakeProbe(*found, busy, &devices_);
    HoldUntilCompared(before, /*probe_failed=*/found->empty());
    numbers_in_doubt_ &= found->empty();
    if (numbers_in_doubt_)
      spdlog::error(
          "the probe found no GPU. Since one was lost the others may have new numbers, so no trainer is started "
          "before it finds them: next try in {} s, see probe.log in the work directory",
          options_.probe_interval_s);
    for (size_t i = 0; i < devices_.size(); ++i) {
      if (devices_[i].fault.empty() == before[i].fault.empty()) continue;
      urgent_ = true;
      spdlog::warn("{} is {}", devices_[i].description,
                   devices_[i].fault.empty() ? "in service again" : "out of service: " + devices_[i].fault);
      LogComparison(devices_[i]);
    }
    next_probe_ms_ = common::BootMillis() + (compare_next_ ? 0 : options_.probe_interval_s * 1000);
  }
  const bool faulty = std::ranges::any_of(devices_, [](const Device& device) { return !device.fault.empty(); });
  const bool wanted = faulty || numbers_in_doubt_;
  if (!wanted || WantsToLeave() || probe_->running() || common::BootMillis() < next_probe_ms_) return;
  next_probe_ms_ = common::BootMillis() + options_.probe_interval_s * 1000;
  const auto device = std::exchange(compare_next_, std::nullopt);
  if (device && !numbers_in_doubt_) comparing_ = device;
  std::vector<std::string> arguments;
  if (comparing_) arguments = {"--check-kernels", devices_[*comparing_].name};
  if (!probe_->Start(arguments)) comparing_.reset();
}

void Worker::Impl::StartAttempt(const v1::Assignment& assignment, bool refuse) {
  const Place place = refuse ? Place{} : PlaceFor(assignment);
  if (place.slot >= 0) free_parts_[static_cast<size_t>(place.slot)] -= place.parts;
  attempts_[IdOf(assignment)] = std::make_shared<Attempt>(*services_, assignment, place, refuse);
  urgent_ = true;
}

int Worker::Impl::FreeSlots() const {
  int free = 0;
  for (size_t i = 0; i < free_parts_.size(); ++i)
    free += free_parts_[i] == kParts && (devices_.empty() || devices_[i].fault.empty());
  return free;
}

Worker::Worker(WorkerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

Worker::~Worker() {
  impl_->Kill();
  (void)impl_->Join();
}

common::Status Worker::Start() { return impl_->Start(); }
void Worker::RequestDrain() { impl_->RequestDrain(); }
void Worker::Stop() { impl_->Stop(); }
void Worker::Kill() { impl_->Kill(); }
common::Status Worker::Join() { return impl_->Join(); }
bool Worker::running() const { return impl_->running(); }

int RunWorker(const WorkerOptions& options, std::stop_token stop) {
  Worker worker(options);
  common::Status status = worker.Start();
  if (status.ok()) {
    std::stop_callback on_stop(stop, [&] { worker.Stop(); });
    status = worker.Join();
  }
  if (!status.ok()) spdlog::error("{}", status.error().message);
  return status.ok() ? 0 : common::ExitCodeOf(status.error().code);
}

}  // namespace allometry::worker
