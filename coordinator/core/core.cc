#include "coordinator/core/core.h"

#include <algorithm>

#include "common/ids.h"
#include "coordinator/core/core_internal.h"

namespace allometry::coordinator {
namespace {

using common::Result;
using common::Status;

scheduler::SweepState SweepStateOf(const std::string& name) {
  if (name == "paused") return scheduler::SweepState::kPaused;
  if (name == "cancelled") return scheduler::SweepState::kCancelled;
  return scheduler::SweepState::kActive;  // whether it is finished follows from its cells
}

int64_t ToInt(const std::string& text) { return text.empty() ? 0 : std::stoll(text); }

}  // namespace

Core::Core(std::unique_ptr<store::Store> store, CoreOptions options, Outbox* outbox)
    : store_(std::move(store)), options_(std::move(options)), outbox_(outbox) {}

Core::~Core() = default;

Result<std::unique_ptr<Core>> Core::Open(std::unique_ptr<store::Store> store, CoreOptions options, Outbox* outbox) {
  auto core = std::unique_ptr<Core>(new Core(std::move(store), std::move(options), outbox));
  store::Store& db = *core->store_;
  db.Begin();
  core->cluster_id_ = db.Meta("cluster_id");
  if (core->cluster_id_.empty()) db.SetMeta("cluster_id", core->cluster_id_ = common::RandomUuid());
  const int64_t starts = ToInt(db.Meta("starts")) + 1;
  db.SetMeta("starts", std::to_string(starts));
  ALLO_RETURN_IF_ERROR(db.Commit());
  core->response_base_ = static_cast<uint64_t>(starts) << 32;
  core->started_unix_ms_ = core->options_.now_unix_ms();
  ALLO_RETURN_IF_ERROR(core->Load());
  return core;
}

Status Core::Load() {
  loaded_ = false;
  scheduler::State state;
  state.hooks = options_.hooks;
  state.lease_ttl_ms = options_.lease_ttl_ms;
  sweeps_.clear();
  sweep_ids_.clear();
  workers_.clear();
  precision_known_.clear();
  noted_ends_.clear();
  const int64_t now_ms = options_.now_boot_ms();
  for (store::SweepRow& row : store_->Sweeps()) {
    if (row.state == "expanding") continue;
    scheduler::Sweep sweep;
    sweep.id = row.sweep_id;
    sweep.priority = row.priority;
    sweep.policy = scheduler::FindPolicy(row.policy);
    if (sweep.policy == nullptr) sweep.policy = scheduler::FindPolicy("");
    sweep.state = SweepStateOf(row.state);
    sweep.budget_flops = row.budget_flops;
    sweep.spent_flops = row.spent_flops;
    state.sweeps[row.sweep_id] = std::move(sweep);
    sweep_ids_[row.name] = row.sweep_id;
    sweeps_[row.sweep_id] = std::move(row);
  }
  for (store::WorkerRow& row : store_->Workers()) {
    state.workers[row.worker_id] = WorkerOf(row, state, now_ms);
    workers_[row.worker_id] = std::move(row);
  }
  store_->LoadRuns(state);
  last_event_ = store_->EventRange().second;
  first_event_ = ToInt(store_->Meta("first_event"));
  last_event_ = std::max(last_event_, first_event_);
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  for (auto& [id, lease] : state.leases) {
    for (scheduler::Placement& placement : lease.placements) placement.expires_ms = now_ms + options_.lease_ttl_ms;
    // Rank 0 ends before its attempt does only when it saw another rank go.
    if (lease.placements.front().finished) lease.peer_lost_until_ms = now_ms + scheduler::kPeerLostWaitMs;
  }
  scheduler::Rebuild(state, now_ms);
  state_ = std::move(state);
  loaded_ = true;
  return common::Ok();
}

scheduler::Worker Core::WorkerOf(const store::WorkerRow& row, scheduler::State& state, int64_t now_ms) {
  scheduler::Worker worker;
  worker.id = row.worker_id;
  worker.slots = static_cast<int>(row.slots);
  worker.memory_bytes = row.memory_bytes;
  worker.kind = DeviceKind(StringsFromJson(row.devices_json));
  worker.devices = DevicesOf(row);
  if (const auto before = state_.workers.find(row.worker_id); before != state_.workers.end())
    for (size_t i = 0; i < std::min(worker.devices.size(), before->second.devices.size()); ++i)
      worker.devices[i].fault = before->second.devices[i].fault;  // it tells only what changes it
  for (const std::string& name : StringsFromJson(row.trainers_json)) worker.trainers.insert(state.TrainerNumber(name));
  worker.draining = row.state == "draining";
  // Its stream is open still when only a batch has failed.
  const auto session = sessions_.find(row.worker_id);
  worker.connected = session != sessions_.end() && session->second.connected;
  worker.last_heard_ms = now_ms;
  return worker;
}

void Core::Enqueue(std::function<void(Batch&)> apply, std::function<void(const common::Error&)> fail) {
  queue_.push_back({std::move(apply), std::move(fail)});
}

void Core::Submit(v1::SubmitRequest request, std::vector<Cell> cells, Reply<v1::SubmitResponse> reply) {
  auto submission = std::make_shared<Submission>();
  submission->cells = std::move(cells);
  submission->reply = std::move(reply);
  auto shared = std::make_shared<v1::SubmitRequest>(std::move(request));
  Enqueue([this, shared, submission](Batch& batch) { ApplySubmit(batch, *shared, submission); },
          [submission](const common::Error& error) {
            if (submission->reply) submission->reply(error);
          });
}

void Core::Cancel(v1::CancelRequest request, Reply<v1::CancelResponse> reply) {
  EnqueueCall(std::move(reply), [this, request = std::move(request)](Batch& b) { return ApplyCancel(b, request); });
}

void Core::Retry(v1::RetryRequest request, Reply<v1::RetryResponse> reply) {
  EnqueueCall(std::move(reply), [this, request = std::move(request)](Batch& b) { return ApplyRetry(b, request); });
}

void Core::Import(store::ImportedRow row, bool replace, Reply<int64_t> reply) {
  EnqueueCall(std::move(reply),
              [this, row = std::move(row), replace](Batch& b) { return ApplyImport(b, row, replace); });
}

void Core::RemoveImport(std::string name, Reply<int64_t> reply) {
  EnqueueCall(std::move(reply), [this, name = std::move(name)](Batch&) -> Result<int64_t> {
    if (!store_->HasImported(name)) return common::NotFound("there is no import '" + name + "'");
    store_->DropImported(name);
    return 0;
  });
}

void Core::Pause(v1::PauseRequest request, Reply<v1::Sweep> reply) {
  ChangeState(std::move(reply), [this, request = std::move(request)](Batch& b) {
    return ApplyPause(b, request.sweep(), true, request.kill_running());
  });
}

void Core::Resume(v1::ResumeRequest request, Reply<v1::Sweep> reply) {
  ChangeState(std::move(reply),
              [this, request = std::move(request)](Batch& b) { return ApplyPause(b, request.sweep(), false, false); });
}

// Replies with the sweep as it is after the commit.
void Core::ChangeState(Reply<v1::Sweep> reply, std::function<Result<int64_t>(Batch&)> handler) {
  EnqueueCall<int64_t>(
      [this, reply = std::move(reply)](Result<int64_t> sweep_id) {
        if (!reply) return;
        reply(sweep_id ? Result<v1::Sweep>(SweepMessage(*sweep_id)) : Result<v1::Sweep>(sweep_id.error()));
      },
      std::move(handler));
}

void Core::DrainWorker(v1::DrainWorkerRequest request, Reply<v1::DrainWorkerResponse> reply) {
  EnqueueCall(std::move(reply), [this, request = std::move(request)](Batch& b) { return ApplyDrain(b, request); });
}

void Core::Register(v1::RegisterRequest request, Reply<v1::RegisterResponse> reply) {
  EnqueueCall(std::move(reply), [this, request = std::move(request)](Batch& b) { return ApplyRegister(b, request); });
}

void Core::Sync(v1::SyncRequest request, Reply<v1::SyncResponse> reply) {
  auto shared = std::make_shared<v1::SyncRequest>(std::move(request));
  auto shared_reply = std::make_shared<Reply<v1::SyncResponse>>(std::move(reply));
  Enqueue(
      [this, shared, shared_reply](Batch& batch) {
        const bool known = ApplySync(batch, *shared);
        batch.deliveries.push_back([this, known, shared, shared_reply] {
          if (!*shared_reply) return;
          if (known) return (*shared_reply)(OrdersFor(shared->worker_id()));
          v1::SyncResponse response;
          response.set_reregister(true);
          (*shared_reply)(std::move(response));
        });
      },
      [shared_reply](const common::Error& error) {
        if (*shared_reply) (*shared_reply)(error);
      });
}

void Core::Disconnected(int64_t worker_id) {
  Enqueue(
      [this, worker_id](Batch& batch) {
        auto session = sessions_.find(worker_id);
        if (session != sessions_.end()) session->second.connected = false;
        Merge(batch, Step(state_, scheduler::WorkerDisconnected{worker_id}, batch.boot_ms));
      },
      [this, worker_id](const common::Error&) { sessions_[worker_id].connected = false; });
}

void Core::Finish(v1::FinishRequest request, Reply<v1::FinishResponse> reply) {
  EnqueueCall(std::move(reply), [this, request = std::move(request)](Batch& b) { return ApplyFinish(b, request); });
}

void Core::ReportCheckpoint(v1::ReportCheckpointRequest request, Reply<v1::ReportCheckpointResponse> reply) {
  EnqueueCall(std::move(reply), [this, request = std::move(request)](Batch& b) { return ApplyCheckpoint(b, request); });
}

void Core::Tick() {
  Enqueue([this](Batch& batch) { Merge(batch, Step(state_, scheduler::Tick{}, batch.boot_ms)); },
          [](const common::Error&) {});
}

bool Core::HasQueued() const { return !queue_.empty() || !submissions_.empty(); }

std::optional<int64_t> Core::NextWakeBootMs() const {
  // A state that could not be read back is tried again.
  if (!loaded_) return options_.now_boot_ms() + kReloadIntervalMs;
  return scheduler::NextWakeMs(state_);
}

}  // namespace allometry::coordinator
