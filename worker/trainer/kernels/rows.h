#pragma once

#include <type_traits>

#include "worker/trainer/kernels/device.h"

// How kernels read rows and add up: packs of `kCount` neighbours, 16 bytes where the layout allows it and 1 value
// otherwise, and sums whose order depends on nothing but the sizes.
namespace allometry::trainer::kernels {

// ---- Packs. For kCount above 1 both types' addresses must be aligned to 16 bytes (Bf16 in fours: to 8).

template <int kCount>
__device__ __forceinline__ void LoadPack(const float* p, float (&v)[kCount]) {
  if constexpr (kCount == 1) {
    v[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      float part[4];
      LoadVector(p + i, part);
      v[i] = part[0];
      v[i + 1] = part[1];
      v[i + 2] = part[2];
      v[i + 3] = part[3];
    }
  }
}
template <int kCount>
__device__ __forceinline__ void LoadPack(const Bf16* p, float (&v)[kCount]) {
  static_assert(kCount == 1 || kCount == 4 || kCount == 8);
  if constexpr (kCount == 1) {
    v[0] = Widen(*p);
  } else if constexpr (kCount == 4) {
    const uint2 raw = *reinterpret_cast<const uint2*>(p);
    v[0] = WidenLow(raw.x);
    v[1] = WidenHigh(raw.x);
    v[2] = WidenLow(raw.y);
    v[3] = WidenHigh(raw.y);
  } else {
    LoadVector(p, v);
  }
}
template <int kCount>
__device__ __forceinline__ void StorePack(float* p, const float (&v)[kCount]) {
  if constexpr (kCount == 1) {
    *p = v[0];
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float part[4] = {v[i], v[i + 1], v[i + 2], v[i + 3]};
      StoreVector(p + i, part);
    }
  }
}
template <int kCount>
__device__ __forceinline__ void StorePack(Bf16* p, const float (&v)[kCount]) {
  static_assert(kCount == 1 || kCount == 4 || kCount == 8);
  if constexpr (kCount == 1) {
    *p = Narrow<Bf16>(v[0]);
  } else if constexpr (kCount == 4) {
    *reinterpret_cast<uint2*>(p) = make_uint2(PackBf16(v[0], v[1]), PackBf16(v[2], v[3]));
  } else {
    StoreVector(p, v);
  }
}

// ---- Sums over a warp and over a block; all of its threads take part and all get the result.

__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int bit = kWarp / 2; bit > 0; bit /= 2) v += __shfl_xor_sync(kAllLanes, v, bit);
  return v;
}
__device__ __forceinline__ float WarpMax(float v) {
#pragma unroll
  for (int bit = kWarp / 2; bit > 0; bit /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, bit));
  return v;
}

template <int kThreads>
__device__ __forceinline__ float BlockSum(float v) {
  __shared__ float parts[kThreads / kWarp];
  v = WarpSum(v);
  __syncthreads();  // an earlier sum has been read
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = v;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < kThreads / kWarp; ++i) total += parts[i];
  return total;
}
template <int kThreads>
__device__ __forceinline__ double BlockSum(double v) {
  __shared__ double parts[kThreads / kWarp];
#pragma unroll
  for (int bit = kWarp / 2; bit > 0; bit /= 2) v += __shfl_xor_sync(kAllLanes, v, bit);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = v;
  __syncthreads();
  double total = 0;
#pragma unroll
  for (int i = 0; i < kThreads / kWarp; ++i) total += parts[i];
  return total;
}

// The sum of exponentials of what was seen so far, relative to the largest (Milakov and Gimelshein 2018, arXiv
// 1805.02867): a softmax in one read. Nothing seen: -inf and 0.
struct OnlineSum {
  float largest, sum;
};
__device__ __forceinline__ OnlineSum NothingSeen() { return {-INFINITY, 0.0f}; }
__device__ __forceinline__ void Merge(OnlineSum& a, const OnlineSum& b) {
  const float largest = fmaxf(a.largest, b.largest);
  if (largest == -INFINITY) return;
  a.sum = a.sum * __expf(a.largest - largest) + b.sum * __expf(b.largest - largest);
  a.largest = largest;
}
template <int kCount>
__device__ __forceinline__ void Add(OnlineSum& s, const float (&v)[kCount]) {
  float largest = s.largest;
#pragma unroll
  for (int i = 0; i < kCount; ++i) largest = fmaxf(largest, v[i]);
  if (largest == -INFINITY) return;
  float sum = s.sum * __expf(s.largest - largest);
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += __expf(v[i] - largest);
  s = {largest, sum};
}
__device__ __forceinline__ OnlineSum WarpMerge(OnlineSum s) {
#pragma unroll
  for (int bit = kWarp / 2; bit > 0; bit /= 2) {
    const OnlineSum other{__shfl_xor_sync(kAllLanes, s.largest, bit), __shfl_xor_sync(kAllLanes, s.sum, bit)};
    Merge(s, other);
  }
  return s;
}
template <int kThreads>
__device__ __forceinline__ OnlineSum BlockMerge(OnlineSum s) {
  __shared__ OnlineSum parts[kThreads / kWarp];
  s = WarpMerge(s);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = s;
  __syncthreads();
  OnlineSum total = parts[0];
#pragma unroll
  for (int i = 1; i < kThreads / kWarp; ++i) Merge(total, parts[i]);
  return total;
}

// ---- The second stage of sums over rows: out[i] = sum over parts of sums[part][i].

constexpr int kSumColumns = 32, kSumSlices = 8;

template <typename T>
__global__ void __launch_bounds__(kSumColumns* kSumSlices)
    SumPartsKernel(const float* sums, T* out, int parts, int64_t n) {
  __shared__ float slices[kSumSlices][kSumColumns];
  const int64_t i = int64_t{blockIdx.x} * kSumColumns + threadIdx.x;
  float sum = 0;
  if (i < n)
    for (int part = static_cast<int>(threadIdx.y); part < parts; part += kSumSlices) sum += sums[part * n + i];
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= n) return;
  float total = 0;
#pragma unroll
  for (int slice = 0; slice < kSumSlices; ++slice) total += slices[slice][threadIdx.x];
  out[i] = Narrow<T>(total);
}

template <typename T>
void SumParts(Stream stream, const float* sums, T* out, int parts, int64_t n) {
  Launch(stream, &SumPartsKernel<T>, dim3(static_cast<unsigned>(CeilDiv<int64_t>(n, kSumColumns))),
         dim3(kSumColumns, kSumSlices), 0, sums, out, parts, n);
}

// ---- Choosing an instance.

// f(float()) or f(Bf16()).
template <typename F>
void WithType(DataType type, F f) {
  if (type == DataType::kFloat32)
    f(float{});
  else
    f(Bf16{});
}

// f(integral_constant<int, kVector<T>>) where rows of `row` values can be read in vectors, otherwise f with 1.
template <typename T, typename F>
void WithPack(bool in_vectors, F f) {
  if (in_vectors)
    f(std::integral_constant<int, kVector<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

template <typename... P>
bool AllAligned(const P*... pointers) {
  return (IsAligned(pointers) && ...);
}

}  // namespace allometry::trainer::kernels
