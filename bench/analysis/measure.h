#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "common/json.h"

namespace allometry::bench {

inline double CpuSeconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// {"cpu_seconds": of all threads, "wall_seconds"}; of several rounds the medians.
inline common::Json Measure(const std::function<void()>& work, int rounds = 1) {
  std::vector<double> cpus, walls;
  for (int round = 0; round < rounds; ++round) {
    const auto wall = std::chrono::steady_clock::now();
    const double cpu = CpuSeconds();
    work();
    cpus.push_back(CpuSeconds() - cpu);
    walls.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - wall).count());
  }
  const auto median = [](std::vector<double>& values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
  };
  return {{"cpu_seconds", median(cpus)}, {"wall_seconds", median(walls)}};
}

}  // namespace allometry::bench
