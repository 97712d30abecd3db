#include "worker/trainer/layers/kernels.h"

#include <atomic>

namespace allometry::trainer {

#define ALLO_DECLARE_KERNELS(set)       \
  namespace set {                       \
  extern const Kernels<float> kFloat;   \
  extern const Kernels<double> kDouble; \
  extern const Kernels<Bf16> kBf16;     \
  }
ALLO_DECLARE_KERNELS(kernels_baseline)
#ifdef ALLO_X86_KERNELS
ALLO_DECLARE_KERNELS(kernels_avx2)
ALLO_DECLARE_KERNELS(kernels_avx512)
#endif

namespace {

std::atomic<KernelSet>& ChosenSet() {
  static std::atomic<KernelSet> set{FastestKernelSet()};
  return set;
}

template <typename T>
const Kernels<T>& Choose(const Kernels<T>& baseline, const Kernels<T>& avx2, const Kernels<T>& avx512) {
  const KernelSet set = ChosenSet().load(std::memory_order_relaxed);
  return set == KernelSet::kAvx512 ? avx512 : set == KernelSet::kAvx2 ? avx2 : baseline;
}

}  // namespace

KernelSet FastestKernelSet() {
#ifdef ALLO_X86_KERNELS
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return KernelSet::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return KernelSet::kAvx2;
#endif
  return KernelSet::kBaseline;
}

void UseKernelSet(KernelSet set) { ChosenSet().store(set); }

#ifdef ALLO_X86_KERNELS
#define ALLO_CHOOSE(table) Choose(kernels_baseline::table, kernels_avx2::table, kernels_avx512::table)
#else
#define ALLO_CHOOSE(table) Choose(kernels_baseline::table, kernels_baseline::table, kernels_baseline::table)
#endif

template <>
const Kernels<float>& CpuKernels<float>() {
  return ALLO_CHOOSE(kFloat);
}
template <>
const Kernels<double>& CpuKernels<double>() {
  return ALLO_CHOOSE(kDouble);
}
template <>
const Kernels<Bf16>& CpuKernels<Bf16>() {
  return ALLO_CHOOSE(kBf16);
}

}  // namespace allometry::trainer
