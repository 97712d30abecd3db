#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "allometry/v1/worker_service.grpc.pb.h"
#include "common/sha256.h"

namespace allometry::worker {

// A coordinator's worker side in memory, with faults to switch on. What it knows survives Stop and Start, as a database
// would.
class FakeCoordinator : public v1::WorkerService::Service {
 public:
  FakeCoordinator() { Start(); }
  ~FakeCoordinator() override { Stop(); }

  void Start() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port_), grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (!server_) throw std::runtime_error("the fake coordinator cannot listen");
    port_ = port;
  }
  void Stop() {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // Locked access to everything below.
  template <typename Act>
  auto With(Act act) {
    std::lock_guard lock(mutex_);
    return act(*this);
  }
  void Want(v1::Assignment assignment) {
    std::lock_guard lock(mutex_);
    desired[Key(assignment.attempt_id(), assignment.rank())] = std::move(assignment);
  }
  // An attempt, or one rank of a gang's.
  static int64_t Key(int64_t attempt_id, int64_t rank) { return attempt_id + 1'000'000 * rank; }
  std::string AddBlob(const std::string& bytes) {
    std::lock_guard lock(mutex_);
    const std::string sha256 = common::Sha256Hex(bytes);
    blobs[sha256] = bytes;
    return sha256;
  }

  int64_t lease_ttl_ms = 60'000;
  int64_t renew_interval_ms = 100;
  int64_t checkpoint_upload_interval_ms = 3'600'000;
  std::string cluster_id = "cluster-1";
  std::string token;
  bool silent = false;       // takes messages and answers none
  bool forget = false;       // says "register again" once
  int failing_finishes = 0;  // answers so many with UNAVAILABLE
  int cut_uploads = 0;       // breaks so many uploads after their first chunk
  int cut_downloads = 0;
  bool accept = true;
  std::map<int64_t, v1::Assignment> desired;  // by Key
  std::map<std::string, std::string> blobs, partial;
  std::vector<v1::RegisterRequest> registered;
  std::vector<v1::FinishRequest> finished;
  std::vector<v1::ReportCheckpointRequest> checkpoints;
  std::map<int64_t, v1::HeldLease> held;                      // newest by Key
  std::map<std::pair<std::string, int64_t>, double> metrics;  // (series, step)
  std::map<std::string, std::string> logs;                    // by stream
  std::vector<int64_t> download_offsets, upload_offsets;
  std::map<int, std::string> faults;  // newest of devices, by number
  uint64_t newest_number = 0;
  bool left = false, numbers_fell = false;

  grpc::Status Register(grpc::ServerContext* context, const v1::RegisterRequest* request,
                        v1::RegisterResponse* response) override {
    std::lock_guard lock(mutex_);
    if (!token.empty()) {
      auto it = context->client_metadata().find("authorization");
      if (it == context->client_metadata().end() || it->second != "Bearer " + token)
        return {grpc::StatusCode::UNAUTHENTICATED, "a wrong token"};
    }
    if (!request->cluster_id().empty() && request->cluster_id() != cluster_id)
      return {grpc::StatusCode::FAILED_PRECONDITION, "this is cluster " + cluster_id};
    registered.push_back(*request);
    response->set_worker_id(static_cast<int64_t>(registered.size()));
    response->set_cluster_id(cluster_id);
    response->set_protocol(1);
    response->set_lease_ttl_ms(lease_ttl_ms);
    response->set_renew_interval_ms(renew_interval_ms);
    response->set_checkpoint_upload_interval_ms(checkpoint_upload_interval_ms);
    return grpc::Status::OK;
  }

  grpc::Status Sync(grpc::ServerContext*,
                    grpc::ServerReaderWriter<v1::SyncResponse, v1::SyncRequest>* stream) override {
    v1::SyncRequest request;
    for (uint64_t number = 1; stream->Read(&request); ++number) {
      v1::SyncResponse response;
      {
        std::lock_guard lock(mutex_);
        if (silent) continue;
        Take(request);
        response.set_number(number);
        response.set_acknowledged(request.number());
        if (forget) {
          forget = false;
          response.set_reregister(true);
        } else {
          for (const auto& [id, assignment] : desired) {
            *response.add_desired() = assignment;
            if (held.count(id)) response.mutable_desired(response.desired_size() - 1)->clear_spec();
          }
        }
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

  grpc::Status Finish(grpc::ServerContext*, const v1::FinishRequest* request, v1::FinishResponse* response) override {
    std::lock_guard lock(mutex_);
    if (failing_finishes-- > 0) return {grpc::StatusCode::UNAVAILABLE, "not now"};
    for (const auto& output : request->outputs()) {
      for (const auto& file : output.files()) {
        if (!blobs.count(file.sha256())) return {grpc::StatusCode::FAILED_PRECONDITION, "absent blob"};
      }
    }
    AddReports(request->metrics(), request->logs());
    finished.push_back(*request);
    desired.erase(Key(request->attempt_id(), request->rank()));
    response->set_accepted(accept);
    return grpc::Status::OK;
  }

  grpc::Status ReportCheckpoint(grpc::ServerContext*, const v1::ReportCheckpointRequest* request,
                                v1::ReportCheckpointResponse* response) override {
    std::lock_guard lock(mutex_);
    checkpoints.push_back(*request);
    response->set_accepted(true);
    return grpc::Status::OK;
  }

  grpc::Status StatBlobs(grpc::ServerContext*, const v1::StatBlobsRequest* request,
                         v1::StatBlobsResponse* response) override {
    std::lock_guard lock(mutex_);
    for (const auto& sha256 : request->sha256()) {
      auto* stat = response->add_blobs();
      stat->set_sha256(sha256);
      stat->set_complete(blobs.count(sha256) > 0);
      stat->set_bytes(static_cast<int64_t>(stat->complete() ? blobs[sha256].size() : partial[sha256].size()));
    }
    return grpc::Status::OK;
  }

  grpc::Status UploadBlob(grpc::ServerContext*, grpc::ServerReader<v1::BlobChunk>* reader,
                          v1::UploadBlobResponse* response) override {
    v1::BlobChunk chunk;
    std::string sha256;
    while (reader->Read(&chunk)) {
      std::lock_guard lock(mutex_);
      if (sha256.empty()) {
        sha256 = chunk.sha256();
        upload_offsets.push_back(chunk.offset());
      }
      std::string& bytes = partial[sha256];
      if (chunk.offset() != static_cast<int64_t>(bytes.size())) return {grpc::StatusCode::OUT_OF_RANGE, "wrong offset"};
      bytes += chunk.data();
      if (cut_uploads > 0) {
        --cut_uploads;
        return {grpc::StatusCode::UNAVAILABLE, "cut off"};
      }
    }
    std::lock_guard lock(mutex_);
    if (common::Sha256Hex(partial[sha256]) != sha256) return {grpc::StatusCode::DATA_LOSS, "wrong hash"};
    blobs[sha256] = partial[sha256];
    response->set_bytes(static_cast<int64_t>(blobs[sha256].size()));
    return grpc::Status::OK;
  }

  grpc::Status DownloadBlob(grpc::ServerContext*, const v1::DownloadBlobRequest* request,
                            grpc::ServerWriter<v1::BlobChunk>* writer) override {
    std::string bytes;
    bool cut = false;
    {
      std::lock_guard lock(mutex_);
      download_offsets.push_back(request->offset());
      if (!blobs.count(request->sha256())) return {grpc::StatusCode::NOT_FOUND, "no such blob"};
      bytes = blobs[request->sha256()];
      cut = cut_downloads > 0 && cut_downloads-- > 0;
    }
    for (auto at = static_cast<size_t>(request->offset()); at < bytes.size();) {
      v1::BlobChunk chunk;
      chunk.set_offset(static_cast<int64_t>(at));
      chunk.set_data(bytes.substr(at, 1 << 20));
      at += chunk.data().size();
      writer->Write(chunk);
      if (cut) return {grpc::StatusCode::UNAVAILABLE, "cut off"};
    }
    return grpc::Status::OK;
  }

 private:
  void Take(const v1::SyncRequest& request) {
    numbers_fell |= request.number() <= newest_number;
    newest_number = request.number();
    left |= request.leaving();
    held.clear();
    for (const auto& lease : request.held()) held[Key(lease.attempt_id(), lease.rank())] = lease;
    faults.clear();
    for (const auto& fault : request.faults()) faults[fault.device()] = fault.reason();
    AddReports(request.metrics(), request.logs());
  }
  void AddReports(const google::protobuf::RepeatedPtrField<v1::MetricChunk>& chunks,
                  const google::protobuf::RepeatedPtrField<v1::LogPart>& parts) {
    for (const auto& chunk : chunks) {
      for (int i = 0; i < chunk.steps_size(); ++i) metrics[{chunk.series(), chunk.steps(i)}] = chunk.values(i);
    }
    for (const auto& part : parts) {
      std::string& log = logs[part.stream()];
      log.resize(std::max(log.size(), static_cast<size_t>(part.offset()) + part.data().size()));
      log.replace(static_cast<size_t>(part.offset()), part.data().size(), part.data());
    }
  }

  std::mutex mutex_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace allometry::worker
