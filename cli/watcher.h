#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cli/client.h"

namespace allometry::cli {

// What a sweep's watch stream brought since it was last asked.
struct WatchChanges {
  std::optional<v1::Sweep> sweep;
  std::vector<v1::CellStatus> cells;
  std::optional<common::Error> ended;  // the stream is over for good: the sweep is unknown, or nobody answers any more
  std::string notice;                  // "connection lost, trying again"
};

// Follows a sweep from a thread of its own: reconnects with growing pauses, starts over when its token has expired. A
// lost coordinator is waited for `patience`; the wait starts anew with each answer. Thread-safe.
class SweepWatcher {
 public:
  SweepWatcher(Client& client, std::string sweep, std::chrono::seconds patience = std::chrono::seconds(60));
  ~SweepWatcher();

  // Blocks until something came or the time is over.
  WatchChanges Take(std::chrono::milliseconds timeout);

 private:
  void Follow();
  grpc::Status ReadStream();

  Client& client_;
  const std::string sweep_;
  const std::chrono::seconds patience_;
  int64_t token_ = 0;                            // of Follow's thread
  std::chrono::steady_clock::time_point heard_;  // of Follow's thread
  std::mutex mutex_;
  std::condition_variable changed_;
  WatchChanges pending_;                          // guarded by mutex_
  bool fresh_ = false;                            // guarded by mutex_: pending_ holds something
  bool stopping_ = false;                         // guarded by mutex_
  std::shared_ptr<grpc::ClientContext> context_;  // guarded by mutex_: of the open stream
  std::thread thread_;
};

}  // namespace allometry::cli
