#include "worker/supervisor/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <future>
#include <stdexcept>

#include "common/files.h"
#include "worker/supervisor/capped_log.h"
#include "worker/supervisor/spawn.h"

namespace allometry::worker {
namespace {

constexpr int kTickMs = 50;
constexpr int64_t kMemorySampleMs = 500;
constexpr size_t kReasonLines = 20, kReasonBytes = 4096;

int64_t MonotonicMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// One output stream of a trainer: the pipe's reading end and the file behind it.
struct OutputPipe {
  int read_fd = -1;
  CappedLog log;

  // False at the end of the stream; true when all that is there now has been read.
  bool Drain() {
    char buffer[1 << 16];
    // Bounded, so that a trainer that prints without pause cannot hold the thread.
    for (int round = 0; round < 64; ++round) {
      const ssize_t n = ::read(read_fd, buffer, sizeof buffer);
      if (n > 0) log.Append({buffer, static_cast<size_t>(n)});
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno == EAGAIN;
      if (n == 0) return false;
    }
    return true;
  }
  void Close() {
    if (read_fd >= 0) ::close(read_fd);
    read_fd = -1;
  }
};

common::Result<std::pair<int, int>> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return common::ResourceExhausted("cannot make a pipe: " + common::ErrnoText());
  ::fcntl(fds[0], F_SETFL, O_NONBLOCK);
  return std::pair<int, int>(fds[0], fds[1]);
}

}  // namespace

struct Supervisor::Child {
  Child(TrainerId id, TrainerSpec spec, CappedLog out, CappedLog err)
      : id(id), spec(std::move(spec)), out{-1, std::move(out)}, err{-1, std::move(err)} {}
  ~Child() {
    out.Close();
    err.Close();
  }
  TrainerId id;
  TrainerSpec spec;
  OutputPipe out, err;
  pid_t pid = 0;
  int64_t started_ms = 0;
  int64_t kill_at_ms = 0;  // 0 = not stopping
  int64_t sample_at_ms = 0;
  int64_t peak_rss_bytes = 0;
  StopCause cause = StopCause::kNone;
};

Supervisor::Supervisor() : wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_fd_ < 0) throw std::runtime_error("cannot make an eventfd: " + common::ErrnoText());
  thread_ = std::thread([this] { RunThread(); });
}

Supervisor::~Supervisor() {
  {
    std::lock_guard lock(mutex_);
    quit_ = true;
  }
  Post([] {});
  thread_.join();
  ::close(wake_fd_);
}

void Supervisor::Post(std::function<void()> command) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(command));
  }
  const uint64_t one = 1;
  (void)!::write(wake_fd_, &one, sizeof one);
}

common::Result<Supervisor::TrainerId> Supervisor::Start(const TrainerSpec& spec) {
  auto promise = std::make_shared<std::promise<common::Result<TrainerId>>>();
  auto answer = promise->get_future();
  Post([this, promise, spec] { promise->set_value(StartOnThread(spec)); });
  return answer.get();
}

void Supervisor::Stop(TrainerId id) {
  Post([this, id] {
    if (Child* child = Find(id)) BeginStop(*child, StopCause::kRequest);
  });
}

void Supervisor::Kill(TrainerId id) {
  Post([this, id] {
    if (Child* child = Find(id)) KillGroup(*child, StopCause::kRequest);
  });
}

std::optional<ProcessEnd> Supervisor::TakeEnd(TrainerId id) {
  std::lock_guard lock(mutex_);
  auto node = ends_.extract(id);
  if (node.empty()) return std::nullopt;
  return std::move(node.mapped());
}

ProcessEnd Supervisor::Wait(TrainerId id) {
  std::unique_lock lock(mutex_);
  if (!pids_.count(id) && !ends_.count(id)) throw std::logic_error("no such trainer: it was waited for already");
  ended_.wait(lock, [&] { return ends_.count(id) > 0; });
  return std::move(ends_.extract(id).mapped());
}

pid_t Supervisor::PidOf(TrainerId id) {
  std::lock_guard lock(mutex_);
  auto it = pids_.find(id);
  return it == pids_.end() ? 0 : it->second;
}

void Supervisor::RunThread() {
  for (;;) {
    RunPosted();
    {
      std::lock_guard lock(mutex_);
      if (quit_ && posted_.empty()) break;
    }
    PollPipes();
    CheckChildren();
  }
  for (auto& [id, child] : children_) {
    KillGroup(*child, StopCause::kRequest);
    Reap(*child);
  }
  children_.clear();
}

void Supervisor::RunPosted() {
  std::deque<std::function<void()>> commands;
  {
    std::lock_guard lock(mutex_);
    commands.swap(posted_);
  }
  for (auto& command : commands) command();
}

void Supervisor::PollPipes() {
  std::vector<pollfd> fds{{wake_fd_, POLLIN, 0}};
  std::vector<OutputPipe*> pipes{nullptr};
  for (auto& [id, child] : children_) {
    for (OutputPipe* pipe : {&child->out, &child->err}) {
      if (pipe->read_fd < 0) continue;
      fds.push_back({pipe->read_fd, POLLIN, 0});
      pipes.push_back(pipe);
    }
  }
  if (::poll(fds.data(), fds.size(), children_.empty() ? -1 : kTickMs) <= 0) return;
  uint64_t count;
  if (fds[0].revents) (void)!::read(wake_fd_, &count, sizeof count);
  for (size_t i = 1; i < fds.size(); ++i) {
    if (fds[i].revents && !pipes[i]->Drain()) pipes[i]->Close();
  }
}

void Supervisor::CheckChildren() {
  const int64_t now_ms = MonotonicMs();
  for (auto it = children_.begin(); it != children_.end();) {
    Child& child = *it->second;
    siginfo_t info{};
    // WNOWAIT: the process stays a zombie until its group is killed, so that the group's number cannot be another's.
    const bool ended = ::waitid(P_PID, static_cast<id_t>(child.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                       info.si_pid == child.pid;
    if (ended) {
      Reap(child);
      it = children_.erase(it);
      continue;
    }
    CheckLimits(child, now_ms);
    ++it;
  }
}

void Supervisor::CheckLimits(Child& child, int64_t now_ms) {
  if (child.kill_at_ms != 0 && now_ms >= child.kill_at_ms) KillGroup(child, child.cause);
  const int64_t limit_ms = child.spec.limit_seconds * 1000;
  if (limit_ms > 0 && now_ms - child.started_ms >= limit_ms) BeginStop(child, StopCause::kTimeLimit);
  if (now_ms < child.sample_at_ms) return;
  child.sample_at_ms = now_ms + kMemorySampleMs;
  const int64_t rss_bytes = GroupRssBytes(child.pid);
  child.peak_rss_bytes = std::max(child.peak_rss_bytes, rss_bytes);
  if (child.spec.limit_memory_bytes > 0 && rss_bytes > child.spec.limit_memory_bytes)
    KillGroup(child, StopCause::kMemoryLimit);
}

// Kills what is left of the group, reads the logs to their end and publishes the end.
void Supervisor::Reap(Child& child) {
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(child.pid), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  ::kill(-child.pid, SIGKILL);
  int status = 0;
  while (::waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
  }
  // A process that left the group may hold a pipe open: wait for the end of the stream, but not for ever.
  for (OutputPipe* pipe : {&child.out, &child.err}) {
    for (int round = 0; pipe->read_fd >= 0 && pipe->Drain() && round < 10; ++round) {
      pollfd fd{pipe->read_fd, POLLIN, 0};
      ::poll(&fd, 1, 20);
    }
    pipe->log.Finish();
  }
  ProcessEnd end;
  end.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  end.cause = child.cause;
  end.seconds = static_cast<double>(MonotonicMs() - child.started_ms) / 1000;
  end.peak_rss_bytes = child.peak_rss_bytes;
  end.stderr_tail = child.err.log.LastLines(kReasonLines, kReasonBytes);
  {
    std::lock_guard lock(mutex_);
    pids_.erase(child.id);
    ends_[child.id] = std::move(end);
  }
  ended_.notify_all();
}

common::Result<Supervisor::TrainerId> Supervisor::StartOnThread(const TrainerSpec& spec) {
  ALLO_ASSIGN_OR_RETURN(CappedLog out, CappedLog::Create(spec.stdout_path, spec.log_cap_bytes));
  ALLO_ASSIGN_OR_RETURN(CappedLog err, CappedLog::Create(spec.stderr_path, spec.log_cap_bytes));
  auto child = std::make_unique<Child>(next_id_, spec, std::move(out), std::move(err));
  ALLO_ASSIGN_OR_RETURN(auto out_pipe, MakePipe());
  child->out.read_fd = out_pipe.first;
  auto err_pipe = MakePipe();
  if (!err_pipe) {
    ::close(out_pipe.second);
    return err_pipe.error();
  }
  child->err.read_fd = err_pipe->first;
  child->started_ms = MonotonicMs();
  auto pid = SpawnInGroup({spec.command, spec.run_directory, spec.environment, out_pipe.second, err_pipe->second});
  ::close(out_pipe.second);
  ::close(err_pipe->second);
  if (!pid) return pid.error();
  child->pid = *pid;
  {
    std::lock_guard lock(mutex_);
    pids_[next_id_] = *pid;
  }
  children_.emplace(next_id_, std::move(child));
  return next_id_++;
}

void Supervisor::BeginStop(Child& child, StopCause cause) {
  if (child.kill_at_ms != 0) return;
  if (child.cause == StopCause::kNone) child.cause = cause;
  child.kill_at_ms = MonotonicMs() + std::max<int64_t>(1, child.spec.grace_ms);
  ::kill(-child.pid, SIGTERM);
}

void Supervisor::KillGroup(Child& child, StopCause cause) {
  if (child.cause == StopCause::kNone) child.cause = cause;
  ::kill(-child.pid, SIGKILL);
}

Supervisor::Child* Supervisor::Find(TrainerId id) {
  auto it = children_.find(id);
  return it == children_.end() ? nullptr : it->second.get();
}

}  // namespace allometry::worker
