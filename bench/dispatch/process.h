#pragma once

#include <sys/types.h>

#include <cstdint>

namespace allometry::bench {

// CPU time that a process has used so far, all its threads together.
struct CpuTime {
  double user_s = 0;
  double system_s = 0;
};
CpuTime CpuTimeOf(pid_t pid);
int64_t ResidentBytesOf(pid_t pid);

double NowSeconds();  // monotonic

}  // namespace allometry::bench
