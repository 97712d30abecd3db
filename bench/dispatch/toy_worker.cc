#include "bench/dispatch/toy_worker.h"

#include <stdexcept>

namespace allometry::bench {

struct ToyWorker::FinishCall {
  grpc::ClientContext context;
  v1::FinishRequest request;
  v1::FinishResponse response;
};

ToyWorker::ToyWorker(const std::string& address, int number, int slots, std::atomic<int64_t>* finished)
    : name_("toy-" + std::to_string(number)), finished_(finished) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  stub_ = v1::WorkerService::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  Register(slots);
}

ToyWorker::~ToyWorker() {
  if (thread_.joinable()) Stop();
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return calls_ == 0; });
}

void ToyWorker::Register(int slots) {
  v1::RegisterRequest request;
  request.set_worker_uuid("uuid-of-" + name_);
  request.set_name(name_);
  request.set_host("bench");
  request.set_protocol_min(1);
  request.set_protocol_max(1);
  request.set_slots(slots);
  request.add_trainers("toy");
  grpc::ClientContext context;
  v1::RegisterResponse response;
  const grpc::Status status = stub_->Register(&context, request, &response);
  if (!status.ok()) throw std::runtime_error("Register: " + status.error_message());
  worker_id_ = response.worker_id();
}

void ToyWorker::Start() {
  stream_ = stub_->Sync(&sync_context_);
  thread_ = std::thread([this] { Run(); });
}

void ToyWorker::Stop() {
  sync_context_.TryCancel();
  thread_.join();
}

void ToyWorker::Run() {
  if (!SendHeld(0)) return;
  v1::SyncResponse response;
  while (stream_->Read(&response)) {
    for (const v1::Assignment& assignment : response.desired()) Finish(assignment);
    if (!SendHeld(response.number())) break;
  }
  (void)stream_->Finish();
}

bool ToyWorker::SendHeld(uint64_t acknowledged) {
  v1::SyncRequest request;
  request.set_worker_id(worker_id_);
  request.set_worker_uuid("uuid-of-" + name_);
  request.set_number(++number_);
  request.set_acknowledged(acknowledged);
  {
    std::lock_guard lock(mutex_);
    for (const auto& [attempt, held] : held_) *request.add_held() = held;
  }
  return stream_->Write(request);
}

void ToyWorker::Finish(const v1::Assignment& assignment) {
  auto call = std::make_unique<FinishCall>();
  {
    std::lock_guard lock(mutex_);
    if (!seen_.insert(assignment.attempt_id()).second) return;
    v1::HeldLease& held = held_[assignment.attempt_id()];
    held.set_run_id(assignment.run_id());
    held.set_attempt_id(assignment.attempt_id());
    held.set_generation(assignment.generation());
    held.set_phase(v1::HeldLease::PHASE_FINISHING);
    held.set_step(100);
    held.set_steps(100);
    ++calls_;
  }
  v1::FinishRequest& request = call->request;
  request.set_worker_id(worker_id_);
  request.set_run_id(assignment.run_id());
  request.set_attempt_id(assignment.attempt_id());
  request.set_generation(assignment.generation());
  request.set_outcome(v1::FinishRequest::OUTCOME_DONE);
  request.set_result_json(R"({"event":"result","metrics":{"validation_loss":3.25,"device_seconds":1.5},"scores":[]})");
  request.set_last_step(100);
  FinishCall* raw = call.release();
  stub_->async()->Finish(&raw->context, &raw->request, &raw->response,
                         [this, raw](const grpc::Status& status) { Finished(raw, status); });
}

void ToyWorker::Finished(FinishCall* call, const grpc::Status& status) {
  std::lock_guard lock(mutex_);
  held_.erase(call->request.attempt_id());
  if (!status.ok()) error_ = "Finish: " + status.error_message();
  if (status.ok() && !call->response.accepted()) error_ = "Finish was not accepted: " + call->response.reason();
  if (status.ok() && call->response.accepted()) finished_->fetch_add(1);
  delete call;
  if (--calls_ == 0) idle_.notify_all();
}

}  // namespace allometry::bench
