#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "worker/daemon/options.h"
#include "worker/supervisor/supervisor.h"

namespace allometry::worker {

// How a device's fault begins, followed by what was seen.
inline constexpr char kDeviceLost[] = "device_lost: ", kDeviceFull[] = "device_full: ",
                      kDriverTooOld[] = "driver_too_old: ";

// What a worker tells of its machine.
std::string HostName();
int64_t MemoryBytes();
// Version, commit, compiler, host, kernel, CPU model and number of cores.
common::Json HostFacts(const WorkerOptions& options);

struct Device {
  std::string name;                   // as the trainer calls it: "cuda:0"
  std::string model;                  // "NVIDIA H100 80GB"; empty: not known
  std::string description;            // "cuda:0 NVIDIA H100 80GB"
  std::string uuid;                   // stays when others disappear and names move up; empty: not known
  int64_t memory_bytes = 0;           // 0: not known
  std::optional<int64_t> free_bytes;  // at the time of the probe
  std::string fault;                  // why it is out of service; empty: it is whole
  // Of the built-in trainer on this device: whether its kernels, and graphs of them, prove right there, or why not.
  bool kernels = false, graphs = false;
  std::string why_not;
  bool compared = false;  // that is known
  int unanswered = 0;     // comparisons that left it unknown
};

// `<builtin trainer> --probe`, which may take long on a sick machine: started, then asked for. At most two minutes,
// with a check of the kernels ten.
class Probe {
 public:
  Probe(const WorkerOptions& options, Supervisor& supervisor) : options_(options), supervisor_(supervisor) {}
  // `arguments` of the trainer's after --probe. False: there is no built-in trainer to ask, devices are not wanted, or
  // it cannot be started.
  bool Start(const std::vector<std::string>& arguments);
  bool running() const { return id_.has_value(); }
  // The accelerators, once it has ended; those of a probe that failed are none.
  std::optional<std::vector<Device>> Take();
  std::vector<Device> Wait();
  void Kill();  // it then finds nothing, without a word in the log

 private:
  std::vector<Device> Read(const ProcessEnd& end) const;

  const WorkerOptions& options_;
  Supervisor& supervisor_;
  std::optional<Supervisor::TrainerId> id_;
  bool killed_ = false;
};

// What a probe says of devices that were known before, each by its uuid or else its name: faults that are mended, names
// that have moved. A device that is not found, or that was full and has less than nine tenths of its memory free while
// no attempt of ours runs on it (`busy`), stays out of service. One on which they run does not become full. New faults
// do not end what runs. How kernels fare is taken where it was not known.
void TakeProbe(const std::vector<Device>& found, const std::vector<bool>& busy, std::vector<Device>* known);
void TakeComparison(const Device& from, Device* device);

}  // namespace allometry::worker
