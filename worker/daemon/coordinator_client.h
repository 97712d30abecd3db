#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "allometry/v1/worker_service.grpc.pb.h"
#include "common/result.h"
#include "worker/daemon/options.h"

namespace allometry::worker {

// Whether the same call may succeed later without anything changed: lost connections, deadlines, a full disk, a
// server's broken moment.
bool WorthRetrying(const common::Error& error);

// The calls of WorkerService, blocking, with deadlines, the token and cancelling. Thread-safe.
class CoordinatorClient {
 public:
  static common::Result<std::unique_ptr<CoordinatorClient>> Create(const WorkerOptions& options);

  using SyncStream = grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>;

  // A call's context: carries the token, and is cancelled by CancelAll while it lives.
  class Call {
   public:
    explicit Call(CoordinatorClient& client, int64_t timeout_ms = 0);  // 0: no deadline
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    grpc::ClientContext context;

   private:
    CoordinatorClient& client_;
  };

  common::Result<v1::RegisterResponse> Register(const v1::RegisterRequest& request);
  common::Result<v1::FinishResponse> Finish(const v1::FinishRequest& request);
  common::Result<v1::ReportCheckpointResponse> ReportCheckpoint(const v1::ReportCheckpointRequest& request);
  common::Result<v1::StatBlobsResponse> StatBlobs(const v1::StatBlobsRequest& request);
  // Sends the file from `offset` in chunks of 1 MiB. `alive` is asked between chunks.
  common::Status UploadBlob(const std::filesystem::path& path, const std::string& sha256, int64_t offset,
                            int64_t total_bytes, const std::function<bool()>& alive);
  // Hands over the blob's bytes from `offset` on, in order; `sink` returns an error to end the call.
  common::Status DownloadBlob(const std::string& sha256, int64_t offset, int64_t total_bytes,
                              const std::function<common::Status(std::string_view)>& sink,
                              const std::function<bool()>& alive);
  std::unique_ptr<SyncStream> OpenSync(Call& call) { return stub_->Sync(&call.context); }

  // Ends all calls, those to come too.
  void CancelAll();

 private:
  CoordinatorClient(std::shared_ptr<grpc::Channel> channel, std::string token);

  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::string token_;
  std::mutex mutex_;
  std::set<grpc::ClientContext*> active_;  // guarded by mutex_
  bool cancelled_ = false;                 // guarded by mutex_
};

}  // namespace allometry::worker
