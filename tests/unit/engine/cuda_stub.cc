// The calls of CUDA's driver that allo-trainer --probe makes, over devices that the environment describes: what the
// probe says of whole, broken and full ones, and of old drivers, is tested with it where there is no GPU.
//   CUDA_STUB_DEVICES   how many there are
//   CUDA_STUB_VERSION   of the driver: 13000
//   CUDA_STUB_BROKEN    the number of a device on which kernels fail, with error 719
//   CUDA_STUB_BUSY      the number of a device that another process has to itself
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kSuccess = 0, kInvalidDevice = 101, kUnavailable = 46, kLaunchFailed = 719;
constexpr size_t kTotal = 80'000'000'000, kFree = 79'000'000'000;
int current = -1;  // the device of the current context

int Number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return kSuccess; }
int cuDriverGetVersion(int* version) {
  *version = Number("CUDA_STUB_VERSION", 13000);
  return kSuccess;
}
int cuDeviceGetCount(int* count) {
  *count = Number("CUDA_STUB_DEVICES", 0);
  return kSuccess;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < Number("CUDA_STUB_DEVICES", 0) ? kSuccess : kInvalidDevice;
}
int cuDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, static_cast<size_t>(size), "Stub 80GB") < 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = kTotal;
  return kSuccess;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : 0;
  return kSuccess;
}
int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  std::memset(uuid, 0xa0 + device, 16);
  return kSuccess;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = reinterpret_cast<void*>(static_cast<size_t>(device) + 1);
  return device == Number("CUDA_STUB_BUSY", -1) ? kUnavailable : kSuccess;
}
int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
int cuCtxSetCurrent(void* context) {
  current = static_cast<int>(reinterpret_cast<size_t>(context)) - 1;
  return kSuccess;
}
int cuMemGetInfo_v2(size_t* free, size_t* total) {
  *free = kFree;
  *total = kTotal;
  return kSuccess;
}
int cuMemAlloc_v2(unsigned long long* address, size_t) {
  *address = 4096;
  return kSuccess;
}
int cuMemsetD8_v2(unsigned long long, unsigned char, size_t) { return kSuccess; }
int cuCtxSynchronize() { return current == Number("CUDA_STUB_BROKEN", -1) ? kLaunchFailed : kSuccess; }
int cuMemFree_v2(unsigned long long) { return kSuccess; }
int cuGetErrorString(int code, const char** text) {
  *text = code == kLaunchFailed  ? "unspecified launch failure"
          : code == kUnavailable ? "CUDA-capable device(s) is/are busy or unavailable"
                                 : "another error";
  return kSuccess;
}

}  // extern "C"
