#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coordinator/core/core.h"
#include "coordinator/rpc/strand.h"
#include "coordinator/rpc/sync_stream.h"
#include "coordinator/rpc/watch_stream.h"

namespace allometry::coordinator {

// Core on its strand, and the streams to which its messages go. Handlers of RPCs reach the state through Post only.
class Hub final : private Outbox {
 public:
  static common::Result<std::unique_ptr<Hub>> Open(std::unique_ptr<store::Store> store, CoreOptions options);
  ~Hub() override;  // Stop

  // Runs `event` on the strand, before the commit of its batch. From any thread; false after Stop.
  bool Post(std::function<void(Core&)> event);

  // New streams, owned by gRPC. From any thread.
  SyncStream* OpenSync();
  WatchStream* OpenWatch(const v1::WatchRequest& request);

  // Ends every stream with UNAVAILABLE, so that workers and watchers look for the next coordinator at once.
  void CloseStreams();

  // Commits what is queued and answers it; nothing runs afterwards.
  void Stop();

  const std::string& cluster_id() const { return cluster_id_; }
  int64_t StrandCpuNanoseconds() const { return strand_->CpuNanoseconds(); }

 private:
  Hub() = default;

  // Outbox; on the strand, within CommitBatch.
  void SendOrders(int64_t worker_id, v1::SyncResponse response) override;
  void WatchReady(int64_t watch_id) override;

  void Commit();
  void Tick();
  void TakeSync(Core& core, const std::shared_ptr<SyncStream>& stream, v1::SyncRequest request);
  void DropSync(Core& core, const std::shared_ptr<SyncStream>& stream);
  void StartWatch(Core& core, const std::shared_ptr<WatchStream>& stream, const v1::WatchRequest& request);
  void PumpWatch(Core& core, int64_t watch_id);
  void DropWatch(Core& core, const std::shared_ptr<WatchStream>& stream);

  std::string cluster_id_;
  // What follows belongs to the strand.
  std::unique_ptr<Core> core_;
  std::map<int64_t, std::shared_ptr<SyncStream>> syncs_;  // by worker
  std::map<int64_t, std::shared_ptr<WatchStream>> watches_;
  std::map<WatchStream*, int64_t> watch_ids_;
  std::string last_commit_error_;
  std::atomic<bool> stopping_ = false;
  std::function<int64_t()> now_boot_ms_;
  std::optional<int64_t> next_wake_boot_ms_;
  // Open streams, to end them at the close: from any thread.
  std::mutex open_mutex_;
  std::map<void*, std::function<void(const grpc::Status&)>> open_;
  std::unique_ptr<Strand> strand_;  // last: its thread uses all of the above
};

}  // namespace allometry::coordinator
