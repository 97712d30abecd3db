#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"

namespace allometry::worker {

struct SpawnRequest {
  std::vector<std::string> command;  // program (looked up in PATH if it has no slash) and arguments
  std::filesystem::path directory;   // its working directory
  std::vector<std::pair<std::string, std::string>> environment;  // on top of this process's own
  int stdout_fd = -1;
  int stderr_fd = -1;
};

// Starts a process as the leader of its own group, with standard input from /dev/null, default signals, no core files
// and no other open descriptor of ours. It gets SIGKILL when the *calling thread* ends, so call this from a thread that
// lives as long as the program. Returns after exec succeeded, or says what failed.
common::Result<pid_t> SpawnInGroup(const SpawnRequest& request);

// Resident bytes of all processes of the group, from /proc; shared pages count once per process.
int64_t GroupRssBytes(pid_t group);

// The absolute path of a program as execvp would find it, or kNotFound.
common::Result<std::string> FindProgram(const std::string& name);

}  // namespace allometry::worker
