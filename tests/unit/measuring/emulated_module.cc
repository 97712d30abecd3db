// The emulated kernels as a module, like liballometry-kernels.so: for bench/gpu's cases, which are Python.
#include "worker/trainer/kernels/kernel_table.h"

extern "C" __attribute__((visibility("default"))) const allometry::trainer::kernels::KernelTable* AllometryKernels() {
  static const allometry::trainer::kernels::KernelTable table = allometry::trainer::kernels::MakeKernelTable();
  return &table;
}
