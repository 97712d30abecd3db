#pragma once

#include <memory>
#include <stop_token>

#include "common/result.h"
#include "worker/daemon/options.h"

namespace allometry::worker {

// A worker: registers with the coordinator, takes leases, runs trainers, reports. Works the same as a process of its
// own and inside another program. Thread-safe. Signals are the caller's business.
class Worker {
 public:
  explicit Worker(WorkerOptions options);
  ~Worker();  // as Kill() and Join()
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Locks the work directory (kFailedPrecondition when another worker has it), asks for devices, starts. The
  // coordinator need not be there yet.
  common::Status Start();
  // Running attempts go on to their end, no new ones come, then the worker leaves.
  void RequestDrain();
  // Trainers write a checkpoint and stop, which is uploaded; then the worker leaves. Without a coordinator it waits no
  // longer than the grace period.
  void Stop();
  // Trainers die now; what they did since their last checkpoint is lost.
  void Kill();
  // Waits until the worker has left: after the above, its idle timeout, a drain from the coordinator, or an error that
  // no trying again mends (wrong token, another cluster).
  common::Status Join();
  bool running() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Runs a worker until it leaves. A first request of `stop` is Stop(). Returns an exit code (common::ExitCodeOf).
int RunWorker(const WorkerOptions& options, std::stop_token stop);

}  // namespace allometry::worker
