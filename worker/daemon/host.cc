#include "worker/daemon/host.h"

#include <spdlog/spdlog.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "common/files.h"
#include "common/machine.h"
#include "common/version.h"
#include "worker/supervisor/event_tailer.h"

namespace allometry::worker {

using common::Json;

namespace {

// `{"device": "cuda:0", "name": "NVIDIA H100"}`, or the device's own name alone under "name".
Device DeviceOf(const Json& entry) {
  Device device;
  device.model = TextOr(entry, "name", "");
  device.name = TextOr(entry, "device", device.model);
  device.description = device.name;
  if (device.name != device.model && !device.model.empty()) device.description += " " + device.model;
  device.uuid = TextOr(entry, "uuid", "");
  device.memory_bytes = IntegerOr(entry, "memory_bytes", 0);
  if (entry.contains("free_bytes")) device.free_bytes = IntegerOr(entry, "free_bytes", 0);
  device.fault = TextOr(entry, "fault", "");
  device.compared = entry.contains("kernels");
  device.kernels = entry.value("kernels", Json()) == true;
  device.graphs = entry.value("graphs", Json()) == true;
  device.why_not = TextOr(entry, "why_not", "");
  return device;
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
          {"cpu", common::CpuModel()}, {"cores", std::thread::hardware_concurrency()}};
}

bool Probe::Start(const std::vector<std::string>& arguments) {
  const auto builtin = options_.trainers.find("builtin");
  if (!options_.use_devices || builtin == options_.trainers.end() || running()) return false;
  TrainerSpec spec;
  spec.command = builtin->second;
  spec.command.push_back("--probe");
  spec.command.insert(spec.command.end(), arguments.begin(), arguments.end());
  spec.run_directory = options_.work_directory;
  spec.stdout_path = options_.work_directory / "probe.json";
  spec.stderr_path = options_.work_directory / "probe.log";
  spec.limit_seconds = arguments.empty() ? 120 : 600;
  auto id = supervisor_.Start(spec);
  if (!id) {
    spdlog::warn("cannot ask the built-in trainer for devices: {}", id.error().message);
    return false;
  }
  id_ = *id;
  return true;
}

std::optional<std::vector<Device>> Probe::Take() {
  if (!id_) return std::nullopt;
  const auto end = supervisor_.TakeEnd(*id_);
  if (!end) return std::nullopt;
  id_.reset();
  if (std::exchange(killed_, false)) return std::vector<Device>{};
  return Read(*end);
}

void Probe::Kill() {
  if (!id_) return;
  supervisor_.Kill(*id_);
  killed_ = true;
}

std::vector<Device> Probe::Wait() {
  if (!id_) return {};
  const ProcessEnd end = supervisor_.Wait(*id_);
  id_.reset();
  return Read(end);
}

std::vector<Device> Probe::Read(const ProcessEnd& end) const {
  auto report = common::ReadJsonFile(options_.work_directory / "probe.json");
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

void TakeComparison(const Device& from, Device* device) {
  device->kernels = from.kernels;
  device->graphs = from.graphs;
  device->why_not = from.why_not;
  device->compared = from.compared;
}

void TakeProbe(const std::vector<Device>& found, const std::vector<bool>& busy, std::vector<Device>* known) {
  for (size_t i = 0; i < known->size(); ++i) {
    Device& device = (*known)[i];
    const auto same = std::ranges::find_if(found, [&](const Device& other) {
      return device.uuid.empty() ? other.name == device.name : other.uuid == device.uuid;
    });
    if (same == found.end()) {
      if (device.fault.empty() && !found.empty())
        device.fault = std::string(kDeviceLost) + "the probe no longer finds it";
      continue;
    }
    device.name = same->name;
    device.free_bytes = same->free_bytes;
    if (!device.compared) TakeComparison(*same, &device);
    // What the probe's own context did not find room for may be our attempts'.
    if (busy[i] && device.fault.empty() && same->fault.starts_with(kDeviceFull)) continue;
    const bool was_full = device.fault.starts_with(kDeviceFull);
    const bool has_room = busy[i] || !same->free_bytes || *same->free_bytes >= same->memory_bytes / 10 * 9;
    if (!was_full || has_room || !same->fault.empty()) device.fault = same->fault;
  }
}

}  // namespace allometry::worker
