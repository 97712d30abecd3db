#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "allometry/v1/analysis_service.grpc.pb.h"
#include "allometry/v1/sweep_service.grpc.pb.h"
#include "allometry/v1/worker_service.grpc.pb.h"
#include "common/sha256.h"
#include "coordinator/server/server.h"

// A real coordinator on a port of its own, and clients that dial it.
namespace allometry::coordinator {

// Ends a call that would hang otherwise; no test depends on how long anything takes.
inline constexpr auto kHangs = std::chrono::minutes(2);

class Context {
 public:
  explicit Context(const std::string& token = "") {
    context.set_deadline(std::chrono::system_clock::now() + kHangs);
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  }
  grpc::ClientContext* operator&() { return &context; }
  grpc::ClientContext context;
};

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "allometry_rpc_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// `sizes` x `seeds` pretraining cells "toy-<size>-s<seed>" of a trainer of one's own.
inline v1::SubmitRequest ToySweep(const std::string& name, int sizes, int seeds) {
  v1::SubmitRequest request;
  request.set_request_uuid("uuid-of-" + name);
  v1::SweepSpec* spec = request.mutable_spec();
  spec->set_name(name);
  spec->set_trainer("toy");
  spec->mutable_data()->add_text("corpus.txt");
  spec->add_architectures()->set_name("toy");
  for (int i = 0; i < sizes; ++i) {
    v1::SizeSpec* size = spec->add_sizes();
    size->set_name("n" + std::to_string(i + 1));
    (*size->mutable_options()->mutable_fields())["order"].set_number_value(i + 1);
  }
  for (int i = 0; i < seeds; ++i) spec->add_seeds(static_cast<uint64_t>(i));
  spec->mutable_pretraining()->set_steps(100);
  v1::ManifestFile* file = request.add_manifest();
  file->set_role("corpus");
  file->set_name("corpus.txt");
  file->set_bytes(6);
  file->set_sha256(common::Sha256Hex("corpus"));
  return request;
}

struct Stubs {
  explicit Stubs(const std::string& address)
      : channel(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), Arguments())),
        sweeps(v1::SweepService::NewStub(channel)),
        cluster(v1::ClusterService::NewStub(channel)),
        workers(v1::WorkerService::NewStub(channel)),
        analysis(v1::AnalysisService::NewStub(channel)) {}

  // A connection of its own each: gRPC would let all clients of a process share one.
  static grpc::ChannelArguments Arguments() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return arguments;
  }

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::SweepService::Stub> sweeps;
  std::unique_ptr<v1::ClusterService::Stub> cluster;
  std::unique_ptr<v1::WorkerService::Stub> workers;
  std::unique_ptr<v1::AnalysisService::Stub> analysis;
};

// A worker without processes: it does what the test says.
class ToyWorker {
 public:
  ToyWorker(const std::string& address, const std::string& name, int slots) : stubs_(address), name_(name) {
    v1::RegisterRequest request;
    request.set_worker_uuid("uuid-of-" + name);
    request.set_name(name);
    request.set_host("here");
    request.set_protocol_min(1);
    request.set_protocol_max(3);
    request.set_slots(slots);
    request.add_trainers("toy");
    Context context;
    status_ = stubs_.workers->Register(&context, request, &registered_);
  }

  const grpc::Status& status() const { return status_; }
  const v1::RegisterResponse& registered() const { return registered_; }
  Stubs& stubs() { return stubs_; }

  void OpenSync() {
    sync_context_ = std::make_unique<Context>();
    stream_ = stubs_.workers->Sync(&sync_context_->context);
  }
  // Sends the complete set; false: the stream is broken.
  bool Send(v1::SyncRequest request = {}) {
    request.set_worker_id(registered_.worker_id());
    request.set_worker_uuid("uuid-of-" + name_);
    request.set_number(++number_);
    request.set_acknowledged(acknowledged_);
    for (const auto& [attempt, held] : held_) *request.add_held() = held;
    return stream_->Write(request);
  }
  // One message of the coordinator, taken as the new desired set.
  bool Receive() {
    v1::SyncResponse response;
    if (!stream_->Read(&response)) return false;
    Take(response);
    return true;
  }
  // Reads until the answer to the newest message has come.
  bool ReceiveAnswer() {
    while (Receive()) {
      if (answered_ == number_) return true;
    }
    return false;
  }
  grpc::Status EndSync() {
    stream_->WritesDone();
    return FinishSync();
  }
  grpc::Status FinishSync() {
    v1::SyncResponse ignored;
    while (stream_->Read(&ignored)) {
    }
    const grpc::Status status = stream_->Finish();
    stream_.reset();
    return status;
  }

  v1::FinishRequest FinishOf(const v1::HeldLease& held, const std::string& result_json) const {
    v1::FinishRequest request;
    request.set_worker_id(registered_.worker_id());
    request.set_run_id(held.run_id());
    request.set_attempt_id(held.attempt_id());
    request.set_generation(held.generation());
    request.set_outcome(v1::FinishRequest::OUTCOME_DONE);
    request.set_result_json(result_json);
    request.set_last_step(100);
    return request;
  }
  grpc::Status Finish(const v1::FinishRequest& request, v1::FinishResponse* response) {
    Context context;
    return stubs_.workers->Finish(&context, request, response);
  }
  void Drop(int64_t attempt_id) { held_.erase(attempt_id); }

  const std::map<int64_t, v1::HeldLease>& held() const { return held_; }
  const v1::RunSpec& spec(int64_t attempt_id) { return specs_[attempt_id]; }
  const v1::SyncResponse& last() const { return last_; }

 private:
  void Take(const v1::SyncResponse& response) {
    last_ = response;
    acknowledged_ = response.number();
    answered_ = response.acknowledged();
    for (const v1::Assignment& assignment : response.desired()) {
      auto [held, added] = held_.try_emplace(assignment.attempt_id());
      held->second.set_run_id(assignment.run_id());
      held->second.set_attempt_id(assignment.attempt_id());
      held->second.set_generation(assignment.generation());
      held->second.set_phase(v1::HeldLease::PHASE_RUNNING);
      held->second.set_steps(100);
      if (assignment.has_spec()) specs_[assignment.attempt_id()] = assignment.spec();
    }
  }

  Stubs stubs_;
  std::string name_;
  grpc::Status status_;
  v1::RegisterResponse registered_;
  std::unique_ptr<Context> sync_context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>> stream_;
  uint64_t number_ = 0, acknowledged_ = 0, answered_ = 0;
  std::map<int64_t, v1::HeldLease> held_;
  std::map<int64_t, v1::RunSpec> specs_;
  v1::SyncResponse last_;
};

}  // namespace allometry::coordinator
