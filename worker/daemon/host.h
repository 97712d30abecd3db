#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/json.h"
#include "worker/daemon/options.h"
#include "worker/supervisor/supervisor.h"

namespace allometry::worker {

// What a worker tells of its machine.
std::string HostName();
int64_t MemoryBytes();
// Version, commit, compiler, host, kernel, CPU model and number of cores.
common::Json HostFacts(const WorkerOptions& options);

struct Device {
  std::string name;         // as the trainer calls it: "cuda:0"
  std::string description;  // "cuda:0 NVIDIA H100 80GB"
};

// The accelerators that `<builtin trainer> --probe` reports; empty when there are none or it cannot be asked.
std::vector<Device> ProbeDevices(const WorkerOptions& options, Supervisor& supervisor);

}  // namespace allometry::worker
