#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/row_random.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kThreads = 256;

__host__ __device__ int64_t SizeOf(const RandomRows& where) {
  return where.outer * where.blocks * where.rows * where.inner;
}

// The number of the value at a place of the dense array.
__device__ __forceinline__ uint64_t NumberOf(const RandomRows& where, int64_t at) {
  const int64_t line = at / where.inner, row = line % where.rows, block = line / where.rows % where.blocks,
                outer = line / where.rows / where.blocks;
  const int64_t batch_row = where.first_row + block * where.block_rows + row;
  return static_cast<uint64_t>((batch_row * where.of + where.first + outer) * where.inner + at % where.inner);
}

// Output `pair` of SplitMix64: the bits of values 2 pair, in the lower half, and 2 pair + 1.
__device__ __forceinline__ uint64_t RandomPair(uint64_t key, uint64_t pair) {
  uint64_t x = (pair + 1) * 0x9e3779b97f4a7c15ull + key;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__device__ __forceinline__ uint64_t KeyOf(const RandomRows& where) {
  return where.step_key ? RandomPair(*where.step_key ^ where.key, 0) : where.key;
}

// The bits of values number ... number + kCount - 1; the number of a pack is even.
template <int kCount>
__device__ __forceinline__ void RandomBits(uint64_t key, uint64_t number, uint32_t (&bits)[kCount]) {
  if constexpr (kCount == 1) {
    const uint64_t x = RandomPair(key, number / 2);
    bits[0] = static_cast<uint32_t>(number % 2 ? x >> 32 : x);
  } else {
#pragma unroll
    for (int k = 0; k < kCount; k += 2) {
      const uint64_t x = RandomPair(key, number / 2 + k / 2);
      bits[k] = static_cast<uint32_t>(x);
      bits[k + 1] = static_cast<uint32_t>(x >> 32);
    }
  }
}

// A pack of neighbours of one row to each thread; value(bits) makes them.
template <typename T, int kCount, typename F>
__device__ __forceinline__ void Fill(const RandomRows& where, T* out, F value) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount;
  if (at >= SizeOf(where)) return;
  uint32_t bits[kCount];
  RandomBits<kCount>(KeyOf(where), NumberOf(where, at), bits);
  float v[kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) v[k] = value(bits[k]);
  StorePack(out + at, v);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) RandomMaskKernel(RandomMaskArgs args) {
  Fill<T, kCount>(args.where, static_cast<T*>(args.out),
                  [&](uint32_t bits) { return bits >= args.threshold ? args.scale : 0.0f; });
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) RandomUniformKernel(RandomUniformArgs args) {
  Fill<float, kCount>(args.where, args.out, [&](uint32_t bits) {
    return fmaf(args.width, static_cast<float>(bits) * 0x1p-32f, args.low);
  });
}

dim3 GridFor(const RandomRows& where, int count) {
  return dim3(static_cast<unsigned>(CeilDiv<int64_t>(SizeOf(where), int64_t{kThreads} * count)));
}

void RandomMask(Stream stream, DataType type, const RandomMaskArgs& args) {
  if (SizeOf(args.where) == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.where.inner % kVector<T> == 0 && IsAligned(args.out), [&](auto count) {
      Launch(stream, &RandomMaskKernel<T, count()>, GridFor(args.where, count()), dim3(kThreads), 0, args);
    });
  });
}

void RandomUniform(Stream stream, const RandomUniformArgs& args) {
  if (SizeOf(args.where) == 0) return;
  WithPack<float>(args.where.inner % kVector<float> == 0 && IsAligned(args.out), [&](auto count) {
    Launch(stream, &RandomUniformKernel<count()>, GridFor(args.where, count()), dim3(kThreads), 0, args);
  });
}

}  // namespace

void AddRowRandomKernels(KernelTable& table) {
  table.random_mask = &RandomMask;
  table.random_uniform = &RandomUniform;
}

}  // namespace allometry::trainer::kernels
