// What the module is beside its kernels: the table, and memory on the device.
#include "worker/trainer/kernels/device.h"
#include "worker/trainer/kernels/kernel_table.h"

namespace allometry::trainer::kernels {
#ifdef __CUDACC__
namespace {

int DeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

const char* LastError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

void* Allocate(size_t bytes) {
  void* memory = nullptr;
  return cudaMalloc(&memory, bytes) == cudaSuccess ? memory : nullptr;
}

void Release(void* memory) { cudaFree(memory); }
void ToDevice(void* to, const void* from, size_t bytes) { cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice); }
void ToHost(void* to, const void* from, size_t bytes) { cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost); }

}  // namespace

void AddDeviceFunctions(KernelTable& table) {
  table.device_count = &DeviceCount;
  table.last_error = &LastError;
  table.allocate = &Allocate;
  table.release = &Release;
  table.to_device = &ToDevice;
  table.to_host = &ToHost;
}
#endif

KernelTable MakeKernelTable() {
  KernelTable table;
  table.version = kKernelTableVersion;
  table.bytes = sizeof(KernelTable);
  AddDeviceFunctions(table);
  AddAttentionKernels(table);
  AddConvolutionKernels(table);
  AddCrossEntropyKernels(table);
  AddExpertKernels(table);
  AddGateKernels(table);
  AddLinearAttentionKernels(table);
  AddNormKernels(table);
  AddOptimizerKernels(table);
  AddRowRandomKernels(table);
  AddSoftmaxKernels(table);
  return table;
}

}  // namespace allometry::trainer::kernels

#ifdef __CUDACC__
extern "C" __attribute__((visibility("default"))) const allometry::trainer::kernels::KernelTable* AllometryKernels() {
  static const allometry::trainer::kernels::KernelTable table = allometry::trainer::kernels::MakeKernelTable();
  return &table;
}
#endif
