#include "worker/trainer/engine/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/Utils.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "arch/architecture.h"
#include "common/machine.h"
#include "common/version.h"

namespace allometry::trainer {
namespace {

using common::Json;

// The first version of CUDA's driver that LibTorch's runtime works with, as the driver writes it (13000 is 13.0): any
// of the same major version.
constexpr int kDriverNeeded = ALLOMETRY_TORCH_CUDA_MAJOR * 1000;

std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string DriverTooOld(int version) {
  return "the NVIDIA driver knows CUDA " + VersionText(version) + ", and this trainer's LibTorch needs " +
         VersionText(kDriverNeeded) + ": update the driver";
}

// The few calls of the CUDA driver that describe and try a device.
class CudaDriver {
 public:
  CudaDriver() : library_(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    usable_ = library_ && Resolve("cuInit", init_) && Resolve("cuDeviceGetCount", count_) &&
              Resolve("cuDeviceGet", get_) && Resolve("cuDeviceGetName", name_) &&
              Resolve("cuDeviceTotalMem_v2", memory_) && Resolve("cuDeviceGetAttribute", attribute_) && init_(0) == 0;
    tries_ = usable_ && Resolve("cuDriverGetVersion", version_) && Resolve("cuDeviceGetUuid_v2", uuid_) &&
             Resolve("cuDevicePrimaryCtxRetain", retain_) && Resolve("cuDevicePrimaryCtxRelease_v2", release_) &&
             Resolve("cuCtxSetCurrent", set_current_) && Resolve("cuMemGetInfo_v2", memory_info_) &&
             Resolve("cuMemAlloc_v2", allocate_) && Resolve("cuMemsetD8_v2", fill_) &&
             Resolve("cuCtxSynchronize", synchronize_) && Resolve("cuMemFree_v2", free_) &&
             Resolve("cuGetErrorString", error_string_);
  }

  // 0: not known.
  int Version() const {
    int version = 0;
    return tries_ && version_(&version) == kSuccess ? version : 0;
  }

  GpuHealth Check(int index) const {
    if (const int version = Version(); version > 0 && version < kDriverNeeded)
      return {0, "driver_too_old: " + DriverTooOld(version)};
    if (!tries_) return {};
    int handle = 0;
    void* context = nullptr;
    int code = get_(&handle, index);
    if (code == kSuccess) code = retain_(&context, handle);
    if (code != kSuccess) return {0, FaultOf(code)};
    GpuHealth health = Use(context);
    set_current_(nullptr);
    release_(handle);
    return health;
  }

  std::vector<GpuInfo> Devices() const {
    std::vector<GpuInfo> gpus;
    int count = 0;
    if (!usable_ || count_(&count) != 0) return gpus;
    for (int i = 0; i < count; ++i) {
      int handle = 0;
      char name[256] = {};
      size_t bytes = 0;
      GpuInfo gpu{.index = i};
      if (get_(&handle, i) != 0 || name_(name, sizeof name - 1, handle) != 0 || memory_(&bytes, handle) != 0) continue;
      attribute_(&gpu.compute_major, kComputeMajor, handle);
      attribute_(&gpu.compute_minor, kComputeMinor, handle);
      gpu.name = name;
      gpu.uuid = UuidOf(handle);
      gpu.memory_bytes = static_cast<int64_t>(bytes);
      gpus.push_back(gpu);
    }
    return gpus;
  }

 private:
  static constexpr int kSuccess = 0, kOutOfMemory = 2, kUnavailable = 46;
  static constexpr size_t kTriedBytes = 16 << 20;

  std::string UuidOf(int handle) const {
    unsigned char bytes[16] = {};
    if (!tries_ || uuid_(bytes, handle) != kSuccess) return "";
    std::string text = "GPU-";
    for (size_t i = 0; i < sizeof bytes; ++i) {
      char two[3];
      std::snprintf(two, sizeof two, "%02x", bytes[i]);
      text += two;
      if (i == 3 || i == 5 || i == 7 || i == 9) text += '-';
    }
    return text;
  }

  GpuHealth Use(void* context) const {
    size_t free = 0, total = 0;
    unsigned long long address = 0;
    int code = set_current_(context);
    if (code == kSuccess) code = memory_info_(&free, &total);
    if (code == kSuccess) code = allocate_(&address, kTriedBytes);
    if (code == kSuccess) {
      code = fill_(address, 1, kTriedBytes);
      if (code == kSuccess) code = synchronize_();
      const int freed = free_(address);
      if (code == kSuccess) code = freed;
    }
    return {static_cast<int64_t>(free), code == kSuccess ? "" : FaultOf(code)};
  }

  std::string FaultOf(int code) const {
    const char* text = nullptr;
    error_string_(code, &text);
    return std::string(code == kOutOfMemory || code == kUnavailable ? "device_full: " : "device_lost: ") +
           (text ? text : "CUDA error") + " (" + std::to_string(code) + ")";
  }

  static constexpr int kComputeMajor = 75, kComputeMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

  template <typename Function>
  bool Resolve(const char* symbol, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(library_, symbol));
    return function != nullptr;
  }

  void* library_;  // stays loaded: LibTorch will want it too
  bool usable_ = false;
  int (*init_)(unsigned) = nullptr;
  int (*count_)(int*) = nullptr;
  int (*get_)(int*, int) = nullptr;
  int (*name_)(char*, int, int) = nullptr;
  int (*memory_)(size_t*, int) = nullptr;
  int (*attribute_)(int*, int, int) = nullptr;
  bool tries_ = false;  // what follows is there too
  int (*version_)(int*) = nullptr;
  int (*uuid_)(unsigned char*, int) = nullptr;
  int (*retain_)(void**, int) = nullptr;
  int (*release_)(int) = nullptr;
  int (*set_current_)(void*) = nullptr;
  int (*memory_info_)(size_t*, size_t*) = nullptr;
  int (*allocate_)(unsigned long long*, size_t) = nullptr;
  int (*fill_)(unsigned long long, unsigned char, size_t) = nullptr;
  int (*synchronize_)() = nullptr;
  int (*free_)(unsigned long long) = nullptr;
  int (*error_string_)(int, const char**) = nullptr;
};

std::string HostName() {
  utsname names{};
  return ::uname(&names) == 0 ? names.nodename : "unknown";
}

int64_t MemoryBytes() {
  return static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(::sysconf(_SC_PAGE_SIZE));
}

// Of CUDA in each process, about. The coordinator reckons with the same (kContextBytesOfGpu in scheduler/gangs.h).
constexpr int64_t kContextBytes = 600'000'000;

int64_t ShareOf(int64_t memory_bytes, double share) {
  if (share >= 1) return memory_bytes;
  return std::max<int64_t>(memory_bytes / 100,
                           static_cast<int64_t>(share * static_cast<double>(memory_bytes)) - kContextBytes);
}

const CudaDriver& Driver() {
  static const CudaDriver driver;
  return driver;
}

Json GpuToJson(const GpuInfo& gpu) {
  const GpuHealth health = CheckGpu(gpu.index);
  return {{"device", "cuda:" + std::to_string(gpu.index)},
          {"name", gpu.name},
          {"uuid", gpu.uuid},
          {"free_bytes", health.free_bytes},
          {"fault", health.fault},
          {"memory_bytes", gpu.memory_bytes},
          {"compute_capability", std::to_string(gpu.compute_major) + "." + std::to_string(gpu.compute_minor)},
          {"precisions", gpu.compute_major >= 8 ? Json{"fp32", "bf16"} : Json{"fp32"}}};
}

Json Versions() {
  return {{"allometry", common::kVersion}, {"commit", common::kCommit}, {"build_type", common::kBuildType},
          {"compiler", common::kCompiler}, {"libtorch", TORCH_VERSION}, {"contract", 1}};
}

}  // namespace

std::vector<GpuInfo> FindGpus() { return Driver().Devices(); }

GpuHealth CheckGpu(int index) { return Driver().Check(index); }

common::Result<at::Device> OpenDevice(const std::string& name, double share) {
  if (name == "cpu") return at::Device(at::kCPU);
  const int index = name.size() > 5 ? std::stoi(name.substr(5)) : 0;
  const std::vector<GpuInfo> gpus = FindGpus();
  if (index >= static_cast<int>(gpus.size()))
    throw DeviceUnusable(ExitCode::kDeviceLost, "execution.device is '" + name + "', but this machine offers " +
                                                    std::to_string(gpus.size()) +
                                                    " GPUs: use cpu, or see allo-trainer --probe");
  if (const int version = Driver().Version(); version > 0 && version < kDriverNeeded)
    throw DeviceUnusable(ExitCode::kDriverTooOld, DriverTooOld(version));
  const int64_t memory_bytes = gpus[static_cast<size_t>(index)].memory_bytes;
  if (share < 1 && memory_bytes > 0) {
    const double fraction = static_cast<double>(ShareOf(memory_bytes, share)) / static_cast<double>(memory_bytes);
    // Read when the library is loaded. What a user has set stays.
    ::setenv("PYTORCH_CUDA_ALLOC_CONF", ("per_process_memory_fraction:" + std::to_string(fraction)).c_str(), 0);
  }
  if (!::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL))
    return common::InvalidArgument(std::string("LibTorch's CUDA library cannot be loaded: ") + ::dlerror());
  if (!at::globalContext().hasCUDA())
    throw DeviceUnusable(ExitCode::kDeviceLost, "LibTorch finds no usable GPU for '" + name + "': see nvidia-smi");
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

common::Result<std::string> ResolvePrecision(const std::string& asked, const at::Device& device) {
  if (device.is_cpu()) return asked == "auto" ? std::string("fp32") : asked;
  if (asked == "fp64") return common::InvalidArgument("execution.precision fp64 is for CPUs");
  const std::vector<GpuInfo> gpus = FindGpus();
  const bool bf16 = gpus.at(static_cast<size_t>(device.index())).compute_major >= 8;
  if (asked == "auto") return std::string(bf16 ? "bf16" : "fp32");
  if (asked == "bf16" && !bf16)
    return common::InvalidArgument("execution.precision is bf16, but " +
                                   gpus[static_cast<size_t>(device.index())].name + " cannot compute in it: use fp32");
  return asked;
}

int64_t DeviceMemoryBytes(const at::Device& device) {
  return device.is_cpu() ? MemoryBytes() : FindGpus().at(static_cast<size_t>(device.index())).memory_bytes;
}

int64_t ShareBytes(const at::Device& device, double share) { return ShareOf(DeviceMemoryBytes(device), share); }

int64_t FreeMemoryBytes(const at::Device& device) {
  if (device.is_cuda())
    return static_cast<int64_t>(c10::getDeviceAllocator(at::kCUDA)->getMemoryInfo(device.index()).first);
  return static_cast<int64_t>(::sysconf(_SC_AVPHYS_PAGES)) * static_cast<int64_t>(::sysconf(_SC_PAGE_SIZE));
}

int64_t PeakMemoryBytes(const at::Device& device) {
  if (device.is_cuda()) {
    auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(at::kCUDA));
    if (allocator) return allocator->getDeviceStats(device.index()).reserved_bytes[0].peak;
  }
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

bool IsOutOfMemory(const std::exception& e) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&e) || dynamic_cast<const std::bad_alloc*>(&e) ||
         std::strstr(e.what(), "can't allocate memory") || std::strstr(e.what(), "out of memory");
}

void EmptyDeviceCache(const at::Device& device) {
  if (!device.is_cuda()) return;
  if (auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(at::kCUDA))) allocator->emptyCache();
}

void UseDeterministicOperations() {
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);  // without it LibTorch refuses matrix products
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);  // nothing reads what it has not written
}

void PrepareProcess(int64_t threads) {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  ::mallopt(M_TOP_PAD, 64 << 20);
  at::set_num_threads(static_cast<int>(threads));
  at::set_num_interop_threads(1);
}

Json Provenance(const std::string& device, int64_t threads) {
  Json facts = Versions();
  facts["host"] = HostName();
  facts["cpu"] = common::CpuModel();
  facts["cpu_capability"] = at::get_cpu_capability();
  facts["threads"] = threads;
  facts["device"] = device;
  if (device != "cpu")
    for (const GpuInfo& gpu : FindGpus())
      if (device == "cuda:" + std::to_string(gpu.index) || (device == "cuda" && gpu.index == 0))
        facts["gpu"] = gpu.name;
  return facts;
}

Json ProbeReport() {
  Json devices = Json::array();
  devices.push_back({{"device", "cpu"},
                     {"name", common::CpuModel()},
                     {"cores", ::sysconf(_SC_NPROCESSORS_ONLN)},
                     {"memory_bytes", MemoryBytes()},
                     {"precisions", {"fp32", "bf16"}}});
  for (const GpuInfo& gpu : FindGpus()) devices.push_back(GpuToJson(gpu));
  Json architectures = Json::object();
  for (const arch::Architecture* architecture : arch::Architectures())
    architectures[std::string(architecture->name())] = architecture->numerics_version();
  return {{"devices", devices}, {"versions", Versions()}, {"host", HostName()}, {"architectures", architectures}};
}

}  // namespace allometry::trainer
