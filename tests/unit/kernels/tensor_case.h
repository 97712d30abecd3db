#pragma once

#include <ATen/core/Tensor.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "worker/trainer/kernels/tensor_kernels.h"

namespace allometry::trainer {

// Kernels on tensors: the emulated ones on a CPU's (false), the module's on a GPU's (true), skipped where there is
// none.
class TensorKernelTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    static const kernels::KernelTable emulated = kernels::MakeKernelTable();
    table_ = &emulated;
    if (!GetParam()) return;
    std::string why_not;
    table_ = kernels::LoadKernelTable(&why_not);
    if (!table_) GTEST_SKIP() << "no kernels on a GPU: " << why_not;
    ASSERT_NE(::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL), nullptr) << ::dlerror();
    device_ = at::Device(at::kCUDA, 0);
  }

  // f, with the layers and optimisers computing by these kernels.
  template <typename F>
  auto ByKernels(F f) {
    std::optional<kernels::ForceKernels> force;
    if (device_.is_cpu()) force.emplace(*table_);
    return f();
  }

  const kernels::KernelTable* table_ = nullptr;
  at::Device device_{at::kCPU};
};

inline std::string TensorKernelName(const ::testing::TestParamInfo<bool>& info) {
  return info.param ? "Device" : "Emulated";
}

}  // namespace allometry::trainer
