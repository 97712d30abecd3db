#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/trainer/kernels/types.h"

// What kernels are written in: CUDA, with the few instructions that the language has no word for as functions, and what
// a processor needs to run the same source (emulated.h). No header of CUDA's beyond the run-time's and none of
// LibTorch's: a file of kernels compiles in seconds.
#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "worker/trainer/kernels/emulated.h"
#endif

#if defined(__CUDACC__) && !defined(__CUDA_ARCH__)
#define ALLO_HOST_PASS  // nvcc's pass over host code, which parses kernels but never runs them
#endif

namespace allometry::trainer::kernels {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

template <typename T>
__host__ __device__ constexpr T Min(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
__host__ __device__ constexpr T Max(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
__host__ __device__ constexpr T CeilDiv(T a, T b) {
  return (a + b - 1) / b;
}

// ---- bfloat16: storage only. Arithmetic is float32.

__device__ __forceinline__ float Widen(float x) { return x; }
__device__ __forceinline__ float Widen(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
// The first of two packed values, which lies in the lower half, and the second.
__device__ __forceinline__ float WidenLow(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float WidenHigh(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// To nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  const auto round = [](float x) -> uint32_t {
    const uint32_t bits = __float_as_uint(x);
    return x != x ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  };
  return round(low) | round(high) << 16;
#endif
}

template <typename T>
__device__ __forceinline__ T Narrow(float x);
template <>
__device__ __forceinline__ float Narrow<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 Narrow<Bf16>(float x) {
  return Bf16{static_cast<uint16_t>(PackBf16(x, 0.0f))};
}

// ---- Vectors of 16 bytes: 4 float32 or 8 bfloat16 values.

template <typename T>
constexpr int kVector = 16 / sizeof(T);

__host__ __device__ __forceinline__ bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

__device__ __forceinline__ uint4 LoadRaw(const void* p) {
#ifndef __CUDACC__
  emulated::CheckAligned(p, 16);
#endif
  return *static_cast<const uint4*>(p);
}
__device__ __forceinline__ void StoreRaw(void* p, uint4 raw) {
#ifndef __CUDACC__
  emulated::CheckAligned(p, 16);
#endif
  *static_cast<uint4*>(p) = raw;
}

__device__ __forceinline__ void LoadVector(const float* p, float (&v)[4]) {
  const uint4 raw = LoadRaw(p);
  v[0] = __uint_as_float(raw.x);
  v[1] = __uint_as_float(raw.y);
  v[2] = __uint_as_float(raw.z);
  v[3] = __uint_as_float(raw.w);
}
__device__ __forceinline__ void LoadVector(const Bf16* p, float (&v)[8]) {
  const uint4 raw = LoadRaw(p);
  const uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = WidenLow(pairs[i]);
    v[2 * i + 1] = WidenHigh(pairs[i]);
  }
}
__device__ __forceinline__ void StoreVector(float* p, const float (&v)[4]) {
  StoreRaw(p, make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3])));
}
__device__ __forceinline__ void StoreVector(Bf16* p, const float (&v)[8]) {
  StoreRaw(p, make_uint4(PackBf16(v[0], v[1]), PackBf16(v[2], v[3]), PackBf16(v[4], v[5]), PackBf16(v[6], v[7])));
}

// ---- Tensor cores: D (16 x 8, float32) += A (16 x 16, bf16) B (16 x 8, bf16) by one warp.
// With group = lane / 4 and pair = 2 (lane % 4) a lane holds, two values to a register (PTX ISA, mma.m16n8k16):
//   a[0] A[group][pair..]      a[1] A[group + 8][pair..]      a[2] A[group][pair + 8..]    a[3] A[group + 8][pair
//   + 8..] b[0] B[pair..][group]      b[1] B[pair + 8..][group] d[0..1] D[group][pair..]   d[2..3] D[group + 8][pair..]

__device__ __forceinline__ void Mma16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDA_ARCH__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif !defined(ALLO_HOST_PASS)
  const emulated::MmaIn in{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}};
  emulated::Collective("Mma16816", kAllLanes, &in, d, &emulated::ExecuteMma);
#endif
}

__device__ __forceinline__ unsigned LaneId() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kWarp;
}

// Two neighbours as one register; p must be aligned to 4 bytes.
__device__ __forceinline__ uint32_t LoadPair(const Bf16* p) {
#ifndef __CUDACC__
  emulated::CheckAligned(p, 4);
#endif
  return *reinterpret_cast<const uint32_t*>(p);
}
__device__ __forceinline__ uint32_t PairOf(Bf16 low, Bf16 high) {
  return static_cast<uint32_t>(low.bits) | static_cast<uint32_t>(high.bits) << 16;
}

// A's fragment from rows of `stride` (even) values; element [0][0] of the tile is at p.
__device__ __forceinline__ void LoadFragmentA(uint32_t (&a)[4], const Bf16* p, int stride) {
  const int group = static_cast<int>(LaneId()) / 4, pair = 2 * (static_cast<int>(LaneId()) % 4);
  p += group * stride + pair;
  a[0] = LoadPair(p);
  a[1] = LoadPair(p + 8 * stride);
  a[2] = LoadPair(p + 8);
  a[3] = LoadPair(p + 8 * stride + 8);
}
// A's fragment from its transpose, stored as rows [k][m].
__device__ __forceinline__ void LoadFragmentATransposed(uint32_t (&a)[4], const Bf16* p, int stride) {
  const int group = static_cast<int>(LaneId()) / 4, pair = 2 * (static_cast<int>(LaneId()) % 4);
  p += pair * stride + group;
  a[0] = PairOf(p[0], p[stride]);
  a[1] = PairOf(p[8], p[stride + 8]);
  a[2] = PairOf(p[8 * stride], p[9 * stride]);
  a[3] = PairOf(p[8 * stride + 8], p[9 * stride + 8]);
}
// B's fragment from rows [n][k], as the second operand of A B^T lies.
__device__ __forceinline__ void LoadFragmentB(uint32_t (&b)[2], const Bf16* p, int stride) {
  const int group = static_cast<int>(LaneId()) / 4, pair = 2 * (static_cast<int>(LaneId()) % 4);
  p += group * stride + pair;
  b[0] = LoadPair(p);
  b[1] = LoadPair(p + 8);
}
// B's fragment from rows [k][n].
__device__ __forceinline__ void LoadFragmentBTransposed(uint32_t (&b)[2], const Bf16* p, int stride) {
  const int group = static_cast<int>(LaneId()) / 4, pair = 2 * (static_cast<int>(LaneId()) % 4);
  p += pair * stride + group;
  b[0] = PairOf(p[0], p[stride]);
  b[1] = PairOf(p[8 * stride], p[9 * stride]);
}

// ---- Copies from global to shared memory that go on while the thread computes. Both ends aligned to 16 bytes.

__device__ __forceinline__ void CopyAsync16(void* shared, const void* global) {
#ifdef __CUDA_ARCH__
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#elif !defined(ALLO_HOST_PASS)
  emulated::CheckAligned(shared, 16);
  emulated::CheckAligned(global, 16);
  emulated::CopyLater(shared, global, 16);
#endif
}
__device__ __forceinline__ void CommitCopies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif !defined(ALLO_HOST_PASS)
  emulated::EndCopyGroup();
#endif
}
// Until at most `kLeft` of this thread's groups are under way; __syncthreads() shows the others' copies.
template <int kLeft>
__device__ __forceinline__ void WaitCopies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#elif !defined(ALLO_HOST_PASS)
  emulated::AwaitCopies(kLeft);
#endif
}

// ---- Shared memory whose size the launch gives.

__device__ __forceinline__ unsigned char* DynamicShared() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return dynamic_shared;
#else
  return emulated::DynamicShared();
#endif
}

// ---- Launching. Errors of a launch are CUDA's last error, which the caller asks for.

template <typename... P, typename... A>
void Launch(Stream stream, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, const A&... args) {
#ifdef __CUDACC__
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking)
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(static_cast<P>(args)...);
#else
  (void)stream;
  emulated::Launch(kernel, grid, block, shared_bytes, args...);
#endif
}

}  // namespace allometry::trainer::kernels
