#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/result.h"
#include "worker/supervisor/exit_class.h"

namespace allometry::worker {

struct TrainerSpec {
  std::vector<std::string> command;     // complete, with arguments
  std::filesystem::path run_directory;  // its working directory
  std::vector<std::pair<std::string, std::string>> environment;
  std::filesystem::path stdout_path;  // log files, overwritten
  std::filesystem::path stderr_path;
  int64_t log_cap_bytes = 16 << 20;  // of each
  int64_t limit_seconds = 0;         // 0 = none: SIGTERM, then SIGKILL after the grace period
  int64_t limit_memory_bytes = 0;    // 0 = none: resident bytes of the group, SIGKILL at once
  int64_t grace_ms = 30'000;
};

// Starts, watches and ends trainers from one permanent thread (PDEATHSIG fires when the spawning *thread* ends). When a
// trainer ends, the rest of its process group is killed. Thread-safe. The destructor kills what still runs.
class Supervisor {
 public:
  using TrainerId = uint64_t;

  Supervisor();
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Returns when the program has been exec'd, or why it could not be.
  common::Result<TrainerId> Start(const TrainerSpec& spec);
  // SIGTERM to the group, SIGKILL after the grace period. Repeated calls change nothing.
  void Stop(TrainerId id);
  void Kill(TrainerId id);
  // The end of a trainer, once; nothing while it runs. Logs are complete when it is there.
  std::optional<ProcessEnd> TakeEnd(TrainerId id);
  // Blocks until it has ended.
  ProcessEnd Wait(TrainerId id);
  // Process id of a running trainer (its group's id), 0 when it has ended.
  pid_t PidOf(TrainerId id);

 private:
  struct Child;

  void Post(std::function<void()> command);
  void RunThread();
  void RunPosted();
  void PollPipes();
  void CheckChildren();
  void CheckLimits(Child& child, int64_t now_ms);
  void Reap(Child& child);
  common::Result<TrainerId> StartOnThread(const TrainerSpec& spec);
  void BeginStop(Child& child, StopCause cause);
  void KillGroup(Child& child, StopCause cause);
  Child* Find(TrainerId id);

  std::mutex mutex_;
  std::condition_variable ended_;
  std::deque<std::function<void()>> posted_;              // guarded by mutex_
  std::map<TrainerId, ProcessEnd> ends_;                  // guarded by mutex_
  std::map<TrainerId, pid_t> pids_;                       // guarded by mutex_; running ones
  bool quit_ = false;                                     // guarded by mutex_
  std::map<TrainerId, std::unique_ptr<Child>> children_;  // the thread's own
  TrainerId next_id_ = 1;                                 // the thread's own
  int wake_fd_ = -1;
  std::thread thread_;
};

}  // namespace allometry::worker
