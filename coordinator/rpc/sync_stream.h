#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "allometry/v1/worker_service.pb.h"

namespace allometry::coordinator {

// A worker's Sync stream. Reading stops until the state has taken in the last message, so a worker cannot fill the
// queue; and only the newest answer waits to be written, since every answer carries the complete set. Lives until gRPC
// and all holders have let go of it.
class SyncStream final : public grpc::ServerBidiReactor<v1::SyncRequest, v1::SyncResponse> {
 public:
  struct Handlers {
    // Both run on threads of gRPC and must not block. The receiver calls ReadNext once it is ready for more.
    std::function<void(const std::shared_ptr<SyncStream>&, v1::SyncRequest)> message;
    std::function<void(const std::shared_ptr<SyncStream>&)> closed;  // once, when no message can come any more
  };

  // Reads nothing before the first ReadNext.
  static std::shared_ptr<SyncStream> Create(Handlers handlers);

  // The following may be called from any thread, also after the end, and do not block.
  void ReadNext();
  void Send(const v1::SyncResponse& response);
  void Close(const grpc::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit SyncStream(Handlers handlers) : handlers_(std::move(handlers)) {}

  Handlers handlers_;
  std::shared_ptr<SyncStream> self_;  // gRPC's share, until OnDone
  std::mutex mutex_;                  // guards what follows
  v1::SyncRequest incoming_;
  v1::SyncResponse outgoing_;                // being written
  std::optional<v1::SyncResponse> waiting_;  // the newest behind it
  bool writing_ = false;
  bool finished_ = false;
};

}  // namespace allometry::coordinator
