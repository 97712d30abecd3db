#include "worker/supervisor/spawn.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "common/files.h"

extern char** environ;

namespace allometry::worker {
namespace {

namespace fs = std::filesystem;

// Everything the child needs, made before fork: between fork and exec only async-signal-safe calls are allowed, since
// another thread may hold the allocator's lock at that moment.
struct ChildPlan {
  const char* program;
  char* const* argv;
  char* const* envp;
  const char* directory;
  pid_t parent;
  int stdin_fd;
  int stdout_fd;
  int stderr_fd;
  int error_fd;
};

void KeepDescriptorsFromExec() {
#ifdef SYS_close_range
  constexpr unsigned kCloseOnExec = 1u << 2;
  if (::syscall(SYS_close_range, 3u, ~0u, kCloseOnExec) == 0) return;
#endif
  for (int fd = 3; fd < 4096; ++fd) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void ResetSignals() {
  struct sigaction action;
  std::memset(&action, 0, sizeof action);
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &action, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void RunChild(const ChildPlan& plan) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != plan.parent) ::_exit(127);  // the parent died before prctl: nobody would kill us
  ResetSignals();
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  const bool ready = ::dup2(plan.stdin_fd, 0) >= 0 && ::dup2(plan.stdout_fd, 1) >= 0 &&
                     ::dup2(plan.stderr_fd, 2) >= 0 && ::chdir(plan.directory) == 0;
  if (ready) {
    KeepDescriptorsFromExec();
    ::execve(plan.program, plan.argv, plan.envp);
  }
  const int error = errno;
  (void)!::write(plan.error_fd, &error, sizeof error);
  ::_exit(127);
}

std::vector<std::string> MergedEnvironment(const std::vector<std::pair<std::string, std::string>>& additions) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : additions) replaced |= text.rfind(name + "=", 0) == 0;
    if (!replaced) merged.push_back(text);
  }
  for (const auto& [name, value] : additions) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (auto& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// fork with all signals blocked, so that none of our handlers runs in the child.
pid_t ForkChild(const ChildPlan& plan) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  if (pid == 0) RunChild(plan);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return pid;
}

// The errno that the child sent, or 0 when exec closed the pipe.
int ReadExecError(int fd) {
  int error = 0;
  ssize_t n;
  do {
    n = ::read(fd, &error, sizeof error);
  } while (n < 0 && errno == EINTR);
  return n == sizeof error ? error : 0;
}

common::Error SpawnError(const SpawnRequest& request, int error) {
  return common::FailedPrecondition("cannot start '" + request.command[0] + "' in '" + request.directory.string() +
                                    "': " + std::strerror(error));
}

bool ExecutableFile(const fs::path& path) {
  std::error_code ec;
  return fs::is_regular_file(path, ec) && ::access(path.c_str(), X_OK) == 0;
}

// Process group and resident pages of /proc/<pid>/stat; false when the process is gone.
bool ReadStat(const char* pid, pid_t* group, int64_t* pages) {
  auto text = common::ReadFile(std::string("/proc/") + pid + "/stat");
  if (!text) return false;
  const size_t name_end = text->rfind(')');  // the name may hold anything, spaces and brackets too
  if (name_end == std::string::npos) return false;
  std::istringstream fields(text->substr(name_end + 1));
  std::string field;
  for (int index = 3; fields >> field; ++index) {
    if (index == 5) *group = static_cast<pid_t>(std::atoll(field.c_str()));
    if (index == 24) {
      *pages = std::atoll(field.c_str());
      return true;
    }
  }
  return false;
}

}  // namespace

common::Result<std::string> FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (ExecutableFile(name)) return fs::absolute(name).string();
    return common::NotFound("'" + name + "' is not an executable file");
  }
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    fs::path candidate = fs::absolute(folder.empty() ? "." : folder) / name;
    if (ExecutableFile(candidate)) return candidate.string();
  }
  return common::NotFound("no program '" + name + "' in PATH");
}

common::Result<pid_t> SpawnInGroup(const SpawnRequest& request) {
  if (request.command.empty()) return common::InvalidArgument("a trainer's command line is empty");
  ALLO_ASSIGN_OR_RETURN(const std::string program, FindProgram(request.command[0]));
  std::vector<std::string> arguments = request.command;
  std::vector<std::string> environment = MergedEnvironment(request.environment);
  const std::vector<char*> argv = Pointers(arguments), envp = Pointers(environment);
  int error_pipe[2];
  if (::pipe2(error_pipe, O_CLOEXEC) != 0) return SpawnError(request, errno);
  const int null_fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const ChildPlan plan{program.c_str(),           argv.data(),       envp.data(),
                       request.directory.c_str(), ::getpid(),        null_fd,
                       request.stdout_fd,         request.stderr_fd, error_pipe[1]};
  const pid_t pid = ForkChild(plan);
  int error = pid < 0 ? errno : 0;
  ::close(error_pipe[1]);
  ::close(null_fd);
  if (pid > 0) {
    ::setpgid(pid, pid);  // whoever comes first: the group exists before we return
    error = ReadExecError(error_pipe[0]);
    if (error != 0) ::waitpid(pid, nullptr, 0);
  }
  ::close(error_pipe[0]);
  if (error != 0) return SpawnError(request, error);
  return pid;
}

int64_t GroupRssBytes(pid_t group) {
  DIR* proc = ::opendir("/proc");
  if (!proc) return 0;
  const int64_t page_bytes = ::sysconf(_SC_PAGESIZE);
  int64_t total = 0;
  while (const dirent* entry = ::readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    pid_t its_group = 0;
    int64_t pages = 0;
    if (ReadStat(entry->d_name, &its_group, &pages) && its_group == group) total += pages * page_bytes;
  }
  ::closedir(proc);
  return total;
}

}  // namespace allometry::worker
