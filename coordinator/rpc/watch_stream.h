#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>

#include "allometry/v1/sweep_service.pb.h"

namespace allometry::coordinator {

// One watcher's stream. It takes one message at a time: whoever writes waits for `written` before the next, so what
// changes meanwhile melts into one message and a slow reader costs no memory. Lives until gRPC and all holders have let
// go of it.
class WatchStream final : public grpc::ServerWriteReactor<v1::WatchEvent> {
 public:
  struct Handlers {
    // Both run on threads of gRPC and must not block.
    std::function<void(const std::shared_ptr<WatchStream>&)> written;
    std::function<void(const std::shared_ptr<WatchStream>&)> closed;  // once, at the end
  };

  static std::shared_ptr<WatchStream> Create(Handlers handlers);

  // From any thread, also after the end; they do not block.
  bool busy();
  void Write(v1::WatchEvent event);  // only while not busy
  void Close(const grpc::Status& status);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit WatchStream(Handlers handlers) : handlers_(std::move(handlers)) {}

  Handlers handlers_;
  std::shared_ptr<WatchStream> self_;  // gRPC's share, until OnDone
  std::mutex mutex_;                   // guards what follows
  v1::WatchEvent outgoing_;
  bool writing_ = false;
  bool finished_ = false;
};

}  // namespace allometry::coordinator
