#pragma once

// CUDA's device language for a processor: what kernels use of it, so that the source that nvcc compiles for a GPU is
// also plain C++ whose threads are fibers. For tests only; device.h includes it where nvcc does not compile.
//
// One block at a time runs in the calling thread. A fiber runs until it waits for others (__syncthreads, a warp's
// collective) or ends; the order is shuffled anew in every round, so that a missing barrier shows in the results. Found
// and thrown as std::logic_error: threads that wait for ever, lanes of one warp in different collectives or gone,
// misaligned vectors, writes beyond the dynamic shared memory, launches outside the hardware's limits. Dynamic shared
// memory starts as NaN. Not emulated: memory order within a warp, timing, independent progress of blocks.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) int4 {
  int32_t x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

// Of the fiber that runs.
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace allometry::trainer::emulated {

// Runs `kernel` once for every thread of the grid.
void Emulate(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

// The order of fibers from the next launch on; any two seeds must give the same results.
void UseOrder(uint64_t seed);

unsigned char* DynamicShared();
void SyncThreads();
[[noreturn]] void Fail(const char* what);

// Waits until all lanes of `mask` are here with the same `execute`, which is then called once with every lane's input
// and output (null outside the mask).
using Execute = void (*)(uint32_t mask, const void* const* in, void* const* out);
void Collective(const char* name, uint32_t mask, const void* in, void* out, Execute execute);

inline unsigned Lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }

// A copy that happens when its thread waits for it, and no earlier.
void CopyLater(void* to, const void* from, size_t bytes);
void EndCopyGroup();
void AwaitCopies(int groups_left);

inline void CheckAligned(const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) Fail("a vector is not aligned to its size");
}

template <typename T>
struct ShuffleIn {
  T value;
  unsigned source;
};

// A lane outside the mask as source is undefined on a GPU: it gives 0xff bytes here.
template <typename T>
void ExecuteShuffle(uint32_t mask, const void* const* in, void* const* out) {
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const auto source = static_cast<const ShuffleIn<T>*>(in[lane])->source;
    if (mask >> source & 1)
      std::memcpy(out[lane], &static_cast<const ShuffleIn<T>*>(in[source])->value, sizeof(T));
    else
      std::memset(out[lane], 0xff, sizeof(T));
  }
}

template <typename T>
T Shuffle(uint32_t mask, T value, unsigned source) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  const ShuffleIn<T> in{value, source};
  T out;
  Collective("a shuffle", mask, &in, &out, &ExecuteShuffle<T>);
  return out;
}

inline void ExecuteBallot(uint32_t mask, const void* const* in, void* const* out) {
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) votes |= static_cast<uint32_t>(*static_cast<const bool*>(in[lane])) << lane;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) std::memcpy(out[lane], &votes, sizeof votes);
}

inline void ExecuteNothing(uint32_t, const void* const*, void* const*) {}

struct MmaIn {
  uint32_t a[4], b[2];
  float c[4];
};
// D = A B + C by the fragments of PTX's mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16").
void ExecuteMma(uint32_t mask, const void* const* in, void* const* out);

template <typename... P, typename... A>
void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, const A&... args) {
  Emulate(grid, block, shared_bytes, [&] { kernel(static_cast<P>(args)...); });
}

}  // namespace allometry::trainer::emulated

inline void __syncthreads() { allometry::trainer::emulated::SyncThreads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  allometry::trainer::emulated::Collective("__syncwarp", mask, nullptr, nullptr,
                                           &allometry::trainer::emulated::ExecuteNothing);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned lane = allometry::trainer::emulated::Lane(), w = static_cast<unsigned>(width);
  return allometry::trainer::emulated::Shuffle(mask, value, lane / w * w + static_cast<unsigned>(source) % w);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const unsigned lane = allometry::trainer::emulated::Lane(), source = lane ^ static_cast<unsigned>(bits),
                 w = static_cast<unsigned>(width);
  return allometry::trainer::emulated::Shuffle(mask, value, source < (lane / w + 1) * w ? source : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = allometry::trainer::emulated::Lane(), w = static_cast<unsigned>(width);
  return allometry::trainer::emulated::Shuffle(mask, value, lane % w + delta < w ? lane + delta : lane);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = allometry::trainer::emulated::Lane(), w = static_cast<unsigned>(width);
  return allometry::trainer::emulated::Shuffle(mask, value, lane % w >= delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  const bool in = vote != 0;
  uint32_t out = 0;
  allometry::trainer::emulated::Collective("__ballot_sync", mask, &in, &out,
                                           &allometry::trainer::emulated::ExecuteBallot);
  return out;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) == mask; }

template <typename T>
T atomicAdd(T* to, std::type_identity_t<T> value) {
  const T before = *to;
  *to = before + value;
  return before;
}
template <typename T>
T atomicMax(T* to, std::type_identity_t<T> value) {
  const T before = *to;
  if (value > before) *to = value;
  return before;
}
template <typename T>
T __ldg(const T* p) {
  return *p;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
