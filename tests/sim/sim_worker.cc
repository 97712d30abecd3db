#include "tests/sim/sim_worker.h"

#include "common/json.h"

namespace allometry::sim {
namespace {

using coordinator::Core;

constexpr int64_t kRenewMs = 10'000;
constexpr int64_t kFinishAgainMs = 5'000;
constexpr int64_t kSafetyMs = 10'000;
constexpr int64_t kBrokenMs = 40'000;  // until a probe finds a device whole again

}  // namespace

SimWorker::SimWorker(World& world, SimHost& host, std::string name, int slots, std::string device)
    : world_(world), host_(host), name_(std::move(name)), slots_(slots), device_(std::move(device)) {
  host_.AddWorker(this);
  StartProcess();
  MaybeDie();
}

void SimWorker::StartProcess() {
  ++process_;
  up_ = true;
  leaving_ = false;
  id_ = 0;
  number_ = applied_ = 0;
  uuid_ = world_.Uuid();
  held_.clear();
  forgotten_.clear();
  chunks_.clear();
  sent_ms_.clear();
  Beat();
}

void SimWorker::Die() {
  if (id_ != 0 && world_.Chance(0.5)) host_.Send([id = id_](Core& core) { core.Disconnected(id); });
  up_ = false;
  ++process_;
  held_.clear();
  world_.After(world_.Between(100, 60'000), [this] {
    if (!up_) StartProcess();
  });
}

void SimWorker::MaybeDie() {
  world_.After(world_.Between(30'000, 300'000), [this] {
    if (!world_.faults()) return;
    if (up_ && world_.Chance(0.5))
      Die();
    else
      CutOff();
    MaybeDie();
  });
}

// Nothing comes or goes for a while; half of the time the process does not notice either (stopped, swapped out), and
// afterwards goes on as if its leases were still good.
void SimWorker::CutOff() {
  cut_until_ms_ = world_.now_ms() + world_.Between(5'000, 3 * kLeaseTtlMs);
  unaware_ = world_.Chance(0.5);
}

void SimWorker::Beat() {
  KillBeforeTheLeaseEnds();
  id_ == 0 ? Register() : Sync();
  world_.After(kRenewMs + world_.Between(-500, 500), [this, process = process_] {
    if (process == process_) Beat();
  });
}

void SimWorker::Register() {
  if (Cut()) return;
  v1::RegisterRequest request;
  request.set_worker_uuid(uuid_);
  request.set_name(name_);
  request.set_host("host of " + name_);
  request.set_protocol_min(1);
  request.set_protocol_max(3);
  request.set_slots(slots_);
  for (int slot = 0; !device_.empty() && slot < slots_; ++slot) {
    request.add_devices("cuda:" + std::to_string(slot) + " " + device_);
    request.add_device_memory_bytes(kDeviceBytes);
  }
  request.add_trainers("builtin");
  host_.Send([this, request, process = process_](Core& core) {
    core.Register(request,
                  host_.Back<v1::RegisterResponse>([this, process](common::Result<v1::RegisterResponse> response) {
                    if (process != process_ || !response || Cut()) return;
                    id_ = response->worker_id();
                    safe_since_ms_ = world_.now_ms();
                    Sync();
                  }));
  });
}

template <typename Message>
void SimWorker::Fill(const Held& held, Message* message) const {
  message->set_run_id(held.assignment.run_id());
  message->set_attempt_id(held.assignment.attempt_id());
  message->set_generation(held.assignment.generation());
}

void SimWorker::Sync(bool leaving) {
  v1::SyncRequest request;
  request.set_worker_id(id_);
  request.set_worker_uuid(uuid_);
  request.set_number(++number_);
  request.set_acknowledged(applied_);
  request.set_leaving(leaving);
  for (const auto& [device, until_ms] : broken_until_ms_)
    if (until_ms > world_.now_ms()) request.add_faults()->set_device(device);
  for (auto& [id, held] : held_) {
    const auto [attempt, rank] = id;
    v1::HeldLease* lease = request.add_held();
    Fill(held, lease);
    lease->set_rank(rank);
    if (rank > 0) continue;
    if (held.assignment.ranks() > 1) lease->set_rendezvous("rendezvous of " + std::to_string(attempt));
    lease->set_step(StepOf(held));
    lease->set_resumed_step(held.start_step);
    lease->set_precision("fp32");
    const std::pair<int64_t, int64_t> key{attempt, StepOf(held)};
    if (chunks_.contains(key) || acknowledged_chunks_.contains(key)) continue;
    v1::MetricChunk& chunk = chunks_[key].message;
    chunk.set_attempt_id(attempt);
    chunk.set_sequence(key.second);
    chunk.set_series("loss");
    chunk.add_steps(key.second);
    chunk.add_values(1.0);
    chunks_[key].first_number = number_;
    if (world_.Chance(0.2)) ReportCheckpoint(held);
  }
  // Everything that is not acknowledged goes along again.
  for (const auto& [key, chunk] : chunks_) *request.add_metrics() = chunk.message;
  sent_ms_[number_] = world_.now_ms();
  if (Cut()) return;
  host_.Send([this, request, process = process_](Core& core) {
    core.Sync(request, host_.Back<v1::SyncResponse>([this, process](common::Result<v1::SyncResponse> response) {
      if (process == process_ && response) OnOrders(*response);
    }));
  });
}

void SimWorker::OnOrders(const v1::SyncResponse& orders) {
  if (!up_ || Cut() || leaving_) return;
  if (orders.reregister()) {
    id_ = 0;
    held_.clear();
    uuid_ = world_.Uuid();
    number_ = applied_ = 0;
    sent_ms_.clear();
    chunks_.clear();
    return Register();
  }
  if (orders.number() <= applied_) return;
  applied_ = orders.number();
  if (auto sent = sent_ms_.find(orders.acknowledged()); sent != sent_ms_.end())
    safe_since_ms_ = std::max(safe_since_ms_, sent->second);
  for (auto chunk = chunks_.begin(); chunk != chunks_.end();) {
    if (chunk->second.first_number > orders.acknowledged()) {
      ++chunk;
      continue;
    }
    acknowledged_chunks_.insert(chunk->first);
    chunk = chunks_.erase(chunk);
  }
  std::map<RankId, const v1::Assignment*> desired;
  for (const v1::Assignment& assignment : orders.desired())
    desired[{assignment.attempt_id(), assignment.rank()}] = &assignment;
  std::erase_if(held_, [&](const auto& held) { return !desired.contains(held.first); });
  for (const auto& [id, assignment] : desired) {
    if (!held_.contains(id)) Begin(*assignment);
    if (!assignment->rendezvous().empty() &&
        assignment->rendezvous() != "rendezvous of " + std::to_string(assignment->attempt_id()))
      world_.Violate("attempt " + std::to_string(assignment->attempt_id()) + " is told " + assignment->rendezvous());
    if (assignment->stop() && held_.contains(id) && !held_.at(id).finishing)
      EndTrainer(id, v1::FinishRequest::OUTCOME_STOPPED);
  }
  if (orders.drain() && held_.empty()) {
    leaving_ = true;
    Sync(true);
    world_.After(20'000, [this, process = process_] {
      if (process == process_) StartProcess();
    });
  }
}

void SimWorker::KillBeforeTheLeaseEnds() {
  if (unaware_ || held_.empty() || world_.now_ms() < safe_since_ms_ + kLeaseTtlMs - kSafetyMs) return;
  for (const auto& [id, held] : held_) forgotten_.insert(id);
  held_.clear();
}

void SimWorker::Begin(const v1::Assignment& assignment) {
  const RankId id{assignment.attempt_id(), assignment.rank()};
  if (!assignment.has_spec() || forgotten_.contains(id)) return;
  Held& held = held_[id];
  held.assignment = assignment;
  held.started_ms = world_.now_ms();
  held.step_ms = world_.Between(200, 3'000);
  held.start_step = std::max(run_folders_[assignment.spec().identity()], assignment.spec().checkpoint_step());
  if (IsBroken(assignment.device())) {  // the coordinator had not heard of it yet: given back
    held.end_step = held.start_step;
    return EndTrainer(id, v1::FinishRequest::OUTCOME_STOPPED);
  }
  DecideFate(held, assignment.spec());
  const int64_t duration_ms = 500 + (held.end_step - held.start_step) * held.step_ms;
  world_.After(duration_ms, [this, id, process = process_, outcome = held.outcome] {
    if (process != process_ || !held_.contains(id) || held_.at(id).finishing) return;
    EndTrainer(id, outcome);
  });
}

void SimWorker::DecideFate(Held& held, const v1::RunSpec& spec) {
  const common::Json run = common::Json::parse(spec.run_json());
  const std::string fate = run.at("fate");
  held.steps = run.at("steps");
  held.end_step = held.steps;
  if (fate == "poison") {
    held.end_step = held.start_step;
    held.outcome = v1::FinishRequest::OUTCOME_CRASH;
  } else if (fate == "config") {
    held.end_step = held.start_step;
    held.outcome = v1::FinishRequest::OUTCOME_CONFIG_ERROR;
  } else if (fate == "diverge") {
    held.end_step = std::max(held.start_step, held.steps / 2);
    held.outcome = v1::FinishRequest::OUTCOME_DIVERGED;
  } else if (fate == "memory" && (spec.micro_batch() == 0 || spec.micro_batch() > 4)) {
    held.end_step = held.start_step;
    held.outcome = v1::FinishRequest::OUTCOME_OUT_OF_MEMORY;
  } else if (world_.Fault(0.1)) {
    held.end_step = world_.Between(held.start_step, held.steps);
    held.outcome = v1::FinishRequest::OUTCOME_CRASH;
  }
  if (held.assignment.ranks() > 1) DecideFateOfRank(held);
  if (held.assignment.has_device()) DecideFateOfDevice(held);
}

// Some before the first step, some later.
void SimWorker::DecideFateOfDevice(Held& held) {
  if (!world_.Fault(0.1)) return;
  held.end_step = world_.Chance(0.5) ? held.start_step : world_.Between(held.start_step, held.steps);
  held.outcome = v1::FinishRequest::OUTCOME_DEVICE_LOST;
}

// Ranks see one another go now and then, whether or not one is gone.
void SimWorker::DecideFateOfRank(Held& held) {
  if (held.outcome != v1::FinishRequest::OUTCOME_DONE || !world_.Fault(0.1)) return;
  held.end_step = world_.Between(held.start_step, held.steps);
  held.outcome =
      world_.Chance(0.8) ? v1::FinishRequest::OUTCOME_PEER_LOST : v1::FinishRequest::OUTCOME_COLLECTIVE_TIMEOUT;
}

int64_t SimWorker::StepOf(const Held& held) const {
  return std::min(held.end_step, held.start_step + (world_.now_ms() - held.started_ms) / held.step_ms);
}

void SimWorker::EndTrainer(RankId id, v1::FinishRequest::Outcome outcome) {
  Held& held = held_.at(id);
  const auto [attempt_id, rank] = id;
  held.finishing = true;
  if (outcome == v1::FinishRequest::OUTCOME_DEVICE_LOST)
    broken_until_ms_[held.assignment.device()] = world_.now_ms() + kBrokenMs;
  held.end_step = StepOf(held);
  v1::FinishRequest& finish = held.finish;
  Fill(held, &finish);
  finish.set_worker_id(id_);
  finish.set_outcome(outcome);
  finish.set_last_step(held.end_step);
  finish.set_rank(rank);
  if (rank > 0) return SendFinish(id);
  if (outcome == v1::FinishRequest::OUTCOME_DONE) {
    finish.set_result_json(R"({"metrics":{"validation_loss":2}})");
    for (const char* name : {"data", "model"}) {
      v1::Output* output = finish.add_outputs();
      output->set_name(name);
      output->add_files()->set_sha256(name + std::to_string(attempt_id));
    }
  } else if (outcome == v1::FinishRequest::OUTCOME_STOPPED) {
    run_folders_[held.assignment.spec().identity()] = held.end_step;
    v1::Output* output = finish.add_outputs();
    output->set_name("checkpoint");
    output->add_files()->set_sha256("checkpoint" + std::to_string(attempt_id));
  }
  SendFinish(id);
}

void SimWorker::SendFinish(RankId id) {
  if (!held_.contains(id)) return;
  const v1::FinishRequest& finish = held_.at(id).finish;
  if (!Cut()) {
    host_.Send([this, finish, process = process_](Core& core) {
      auto caller =
          host_.Back<v1::FinishResponse>([this, finish, process](common::Result<v1::FinishResponse> response) {
            if (process != process_ || !response || Cut()) return;
            held_.erase({finish.attempt_id(), finish.rank()});
            forgotten_.insert({finish.attempt_id(), finish.rank()});
          });
      core.Finish(finish, [this, finish, caller](common::Result<v1::FinishResponse> response) {
        // From here on it has left the coordinator, wherever it gets lost.
        if (response && response->accepted() && finish.rank() == 0) host_.invariants().FinishAcknowledged(finish);
        caller(std::move(response));
      });
    });
  }
  world_.After(kFinishAgainMs, [this, id, process = process_] {
    if (process == process_) SendFinish(id);
  });
}

void SimWorker::ReportCheckpoint(const Held& held) {
  if (held.finishing) return;
  v1::ReportCheckpointRequest request;
  Fill(held, &request);
  request.set_worker_id(id_);
  request.set_step(StepOf(held));
  request.mutable_checkpoint()->set_name("checkpoint");
  request.mutable_checkpoint()->add_files()->set_sha256("checkpoint at " + std::to_string(request.step()));
  host_.Send([this, request](Core& core) {
    core.ReportCheckpoint(request, host_.Back<v1::ReportCheckpointResponse>([](auto) {}));
  });
}

}  // namespace allometry::sim
