#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/engine/exit_code.h"

namespace allometry::trainer {

// The device cannot be used, through no fault of the run: it is lost, full, or its driver is too old.
class DeviceUnusable : public std::runtime_error {
 public:
  DeviceUnusable(ExitCode exit_code, const std::string& what) : std::runtime_error(what), code(exit_code) {}
  ExitCode code;
};

// A GPU as its driver describes it; found without LibTorch's CUDA library, whose loading alone takes 0.2 s and 230 MB.
struct GpuInfo {
  int index = 0;
  std::string name;
  int64_t memory_bytes = 0;
  int compute_major = 0, compute_minor = 0;
  std::string uuid;  // "GPU-…"
};

// Whether a GPU works: a context, some memory, a fill and a wait for it. Takes a fraction of a second of a whole one.
struct GpuHealth {
  int64_t free_bytes = 0;
  std::string fault;  // empty: it is whole; else "device_lost: …", "device_full: …" or "driver_too_old: …"
};
GpuHealth CheckGpu(int index);

// The GPUs that this process may use (CUDA_VISIBLE_DEVICES is obeyed); empty without a driver.
std::vector<GpuInfo> FindGpus();

// The device to compute on, with LibTorch's CUDA library loaded if it is a GPU. kInvalidArgument: that cannot be
// loaded. Throws DeviceUnusable. `share`: of a GPU's memory, that LibTorch's allocator keeps to, CUDA's context
// included.
common::Result<at::Device> OpenDevice(const std::string& name, double share = 1);

// What "auto" means on a device: bf16 on GPUs of compute capability 8 or more, fp32 elsewhere; other words pass
// through. kInvalidArgument if the device cannot compute in the asked precision.
common::Result<std::string> ResolvePrecision(const std::string& asked, const at::Device& device);

// All memory of a GPU, or of the machine.
int64_t DeviceMemoryBytes(const at::Device& device);

// What a run with that share of a device may have: of a shared GPU without CUDA's context, which each process has.
int64_t ShareBytes(const at::Device& device, double share);
// Of the memory, what no program uses now.
int64_t FreeMemoryBytes(const at::Device& device);

// Highest memory use so far: of this process on a CPU, of LibTorch's allocator on a GPU.
int64_t PeakMemoryBytes(const at::Device& device);

// Whether an exception of LibTorch says that memory, the device's or the host's, did not suffice.
bool IsOutOfMemory(const std::exception& e);
// Gives a GPU's cached and unused memory back, so that it can be had in other pieces.
void EmptyDeviceCache(const at::Device& device);

// From now on GPUs take operations that give equal bits each time, also among LibTorch's own; one that has none such
// throws. Before the first operation on a GPU.
void UseDeterministicOperations();

// Sets thread counts (one thread between operations) and the allocator's thresholds, so that freed tensors are reused
// instead of being given back to the system and faulted in again. Once, before the first tensor operation.
void PrepareProcess(int64_t threads);

// Versions and host facts for the `start` event.
common::Json Provenance(const std::string& device, int64_t threads);

// The answer to --probe.
common::Json ProbeReport();

}  // namespace allometry::trainer
