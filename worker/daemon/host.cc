#include "worker/daemon/host.h"

#include <spdlog/spdlog.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <thread>

#include "common/files.h"
#include "common/machine.h"
#include "common/version.h"
#include "worker/supervisor/event_tailer.h"

namespace allometry::worker {

using common::Json;

namespace {

// `{"device": "cuda:0", "name": "NVIDIA H100"}`, or the device's own name alone under "name".
Device DeviceOf(const Json& entry) {
  const std::string model = TextOr(entry, "name", "");
  const std::string name = TextOr(entry, "device", model);
  return {name, name == model || model.empty() ? name : name + " " + model};
}

}  // namespace

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

int64_t MemoryBytes() { return int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE); }

Json HostFacts(const WorkerOptions& options) {
  struct utsname kernel {};
  ::uname(&kernel);
  return {{"name", options.name},      {"version", common::kVersion},
          {"commit", common::kCommit}, {"compiler", common::kCompiler},
          {"host", HostName()},        {"kernel", std::string(kernel.sysname) + " " + kernel.release},
          {"cpu", common::CpuModel()},         {"cores", std::thread::hardware_concurrency()}};
}

std::vector<Device> ProbeDevices(const WorkerOptions& options, Supervisor& supervisor) {
  auto builtin = options.trainers.find("builtin");
  if (!options.use_devices || builtin == options.trainers.end()) return {};
  TrainerSpec spec;
  spec.command = builtin->second;
  spec.command.push_back("--probe");
  spec.run_directory = options.work_directory;
  spec.stdout_path = options.work_directory / "probe.json";
  spec.stderr_path = options.work_directory / "probe.log";
  spec.limit_seconds = 120;
  auto id = supervisor.Start(spec);
  if (!id) {
    spdlog::warn("cannot ask the built-in trainer for devices: {}", id.error().message);
    return {};
  }
  const ProcessEnd end = supervisor.Wait(*id);
  auto report = common::ReadJsonFile(spec.stdout_path);
  if (end.exit_code != 0 || !report || !report->is_object() || !report->contains("devices")) {
    spdlog::warn("the built-in trainer's --probe gave no devices: {}", DescribeEnd(end, true));
    return {};
  }
  std::vector<Device> devices;
  for (const auto& device : (*report)["devices"]) {
    const Device found = device.is_object() ? DeviceOf(device) : Device{};
    if (!found.name.empty() && found.name != "cpu") devices.push_back(found);
  }
  return devices;
}

}  // namespace allometry::worker
