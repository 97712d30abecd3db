#pragma once

#include "worker/trainer/kernels/device.h"

// Tiles of bf16 rows in shared memory and the tensor cores' fragments read from them by ldmatrix. For device code.
//
// A tile is rows of kDepth values in chunks of 16 bytes (8 values). Chunk c of row r lies at place c ^ Turn(r) of its
// row, so that the eight rows that one ldmatrix phase reads, and the rows that a copy or a store of fragments writes at
// once, fall on different banks without padding.
namespace allometry::trainer::kernels {

#ifdef __CUDACC__
using SharedAddress = uint32_t;  // of the shared window, which ldmatrix takes
#else
using SharedAddress = uintptr_t;
#endif

__device__ __forceinline__ SharedAddress AddressOf(const void* shared) {
#ifdef __CUDA_ARCH__
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#else
  return static_cast<SharedAddress>(reinterpret_cast<uintptr_t>(shared));
#endif
}

#ifndef __CUDACC__
namespace emulation {

// Row r of the lanes' 32 is the r-th lane's address; register i of a lane is a pair of matrix i (rows 8 i to 8 i + 7).
inline uint16_t MatrixValue(const void* const* in, unsigned row, unsigned column) {
  return reinterpret_cast<const uint16_t*>(*static_cast<const SharedAddress*>(in[row]))[column];
}
template <bool kTransposed>
void ExecuteLoadMatrices(uint32_t, const void* const* in, void* const* out) {
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned group = lane / 4, pair = 2 * (lane % 4);
      const auto at = [&](unsigned e) {
        return kTransposed ? MatrixValue(in, 8 * i + pair + e, group) : MatrixValue(in, 8 * i + group, pair + e);
      };
      static_cast<uint32_t*>(out[lane])[i] = static_cast<uint32_t>(at(0)) | static_cast<uint32_t>(at(1)) << 16;
    }
}

}  // namespace emulation
#endif

// ldmatrix.x4 (PTX ISA): four 8 x 8 matrices, of which lanes 8 i to 8 i + 7 give the rows of the i-th; register i holds
// M_i[lane / 4][2 (lane % 4)..], or of the transpose.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], SharedAddress row) {
#ifdef __CUDA_ARCH__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row));
#elif !defined(ALLO_HOST_PASS)
  emulated::CheckAligned(reinterpret_cast<const void*>(row), 16);
  emulated::Collective("LoadMatrices", kAllLanes, &row, r, &emulation::ExecuteLoadMatrices<false>);
#endif
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4], SharedAddress row) {
#ifdef __CUDA_ARCH__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row));
#elif !defined(ALLO_HOST_PASS)
  emulated::CheckAligned(reinterpret_cast<const void*>(row), 16);
  emulated::Collective("LoadMatricesTransposed", kAllLanes, &row, r, &emulation::ExecuteLoadMatrices<true>);
#endif
}

// CopyAsync16 of kBytes (8 or 16), or as many zeros; `global` must be readable memory's address either way.
template <int kBytes>
__device__ __forceinline__ void CopyAsyncOrZero(void* shared, const void* global, bool copy) {
  static_assert(kBytes == 8 || kBytes == 16);
#ifdef __CUDA_ARCH__
  if constexpr (kBytes == 16)  // past the first-level cache, which takes whole 16 bytes only
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(AddressOf(shared)), "l"(global),
                 "r"(copy ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(AddressOf(shared)), "l"(global), "r"(copy ? 8 : 0)
                 : "memory");
#elif !defined(ALLO_HOST_PASS)
  static const uint4 zeros{};
  emulated::CheckAligned(shared, kBytes);
  emulated::CheckAligned(global, kBytes);
  emulated::CopyLater(shared, copy ? global : &zeros, kBytes);
#endif
}

// 2^x, to about two units in the last place (PTX ISA, ex2.approx).
__device__ __forceinline__ float Exp2(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

template <int kDepth>
constexpr int kChunksPerRow = kDepth / 8;
template <int kDepth>
constexpr int kTileRowBytes = kDepth * 2;

template <int kDepth>
__host__ __device__ constexpr int Turn(int row) {
  return kDepth >= 64 ? row & 7 : (row >> 1) & 3;  // two rows of 32 values share the 32 banks
}

// Byte offset of a chunk in its tile.
template <int kDepth>
__host__ __device__ constexpr int ChunkOffset(int row, int chunk) {
  static_assert(kDepth == 32 || kDepth % 64 == 0);
  return row * kTileRowBytes<kDepth> + ((chunk ^ Turn<kDepth>(row)) << 4);
}

// Begins to copy rows first.. of a matrix to a tile by all threads of the block. Rows from `rows` on and columns from
// `depth` on are zeros.
template <int kDepth, int kRows, int kThreads>
__device__ __forceinline__ void CopyTile(unsigned char* tile, const Bf16* from, int64_t stride, int first, int rows,
                                         int depth) {
  constexpr int kChunks = kChunksPerRow<kDepth>;
  static_assert(kRows * kChunks % kThreads == 0);
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
#pragma unroll
  for (int i = 0; i < kRows * kChunks / kThreads; ++i) {
    const int row = static_cast<int>(threadIdx.x) / kChunks + i * (kThreads / kChunks);
    const bool inside = first + row < rows && chunk * 8 < depth;
    const Bf16* source = inside ? from + (first + row) * stride + chunk * 8 : from;
    CopyAsyncOrZero<16>(tile + ChunkOffset<kDepth>(row, chunk), source, inside);
  }
}

// Where a lane's row of an ldmatrix lies, for any 8 rows and any even chunk from the first on.
template <int kDepth>
struct LaneRows {
  SharedAddress row;
  int chunk;

  __device__ __forceinline__ SharedAddress At(int rows, int chunks) const {
    return row + static_cast<SharedAddress>(rows * kTileRowBytes<kDepth> + ((chunk ^ chunks) << 4));
  }
};

// Matrices in the order (rows 0-7, rows 8-15) x chunk 0, the same x chunk 1: fragment A of rows [m][k], or B's of rows
// [k][n] when transposed, registers 0-1 for n 0-7 and 2-3 for n 8-15.
template <int kDepth>
__device__ __forceinline__ LaneRows<kDepth> RowsFirst(const unsigned char* tile) {
  const int lane = static_cast<int>(LaneId()), row = lane & 15;
  return {AddressOf(tile) + static_cast<SharedAddress>(row * kTileRowBytes<kDepth>), (lane >> 4) ^ Turn<kDepth>(row)};
}
// (chunk 0, chunk 1) x rows 0-7, the same x rows 8-15: fragment B of rows [n][k], registers 0-1 for n 0-7, 2-3 for
// n 8-15.
template <int kDepth>
__device__ __forceinline__ LaneRows<kDepth> ChunksFirst(const unsigned char* tile) {
  const int lane = static_cast<int>(LaneId()), row = (lane & 7) | (lane >> 4 << 3);
  return {AddressOf(tile) + static_cast<SharedAddress>(row * kTileRowBytes<kDepth>),
          (lane >> 3 & 1) ^ Turn<kDepth>(row)};
}

// The two halves of B's registers, n 0-7 and n 8-15, against one A.
__device__ __forceinline__ void MmaPair(float (&low)[4], float (&high)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[4]) {
  Mma16816(low, a, {b[0], b[1]});
  Mma16816(high, a, {b[2], b[3]});
}

// sums += A B^T over the depth, of A's rows 16 i and B's rows 8 j from the lanes' first on.
template <int kDepth, int kI, int kJ>
__device__ __forceinline__ void MultiplyByRows(float (&sums)[kI][kJ][4], LaneRows<kDepth> a_rows,
                                               LaneRows<kDepth> b_rows) {
#pragma unroll
  for (int k = 0; k < kDepth / 16; ++k) {
    uint32_t a[kI][4];
#pragma unroll
    for (int i = 0; i < kI; ++i) LoadMatrices(a[i], a_rows.At(16 * i, 2 * k));
#pragma unroll
    for (int j = 0; j < kJ; j += 2) {
      uint32_t b[4];
      LoadMatrices(b, b_rows.At(8 * j, 2 * k));
#pragma unroll
      for (int i = 0; i < kI; ++i) MmaPair(sums[i][j], sums[i][j + 1], a[i], b);
    }
  }
}

// sums += A B, A in registers as Fragments gives it, of B's rows from the lanes' first on.
template <int kDepth, int kI, int kSteps>
__device__ __forceinline__ void MultiplyByColumns(float (&sums)[kI][kDepth / 8][4], const uint32_t (&a)[kI][kSteps][4],
                                                  LaneRows<kDepth> b_rows) {
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int n = 0; n < kDepth / 8; n += 2) {
      uint32_t b[4];
      LoadMatricesTransposed(b, b_rows.At(16 * k, n));
#pragma unroll
      for (int i = 0; i < kI; ++i) MmaPair(sums[i][n], sums[i][n + 1], a[i][k], b);
    }
  }
}

// A product's result is, rounded to bf16, the next product's A fragment: the lanes hold the same elements of both
// (FlashAttention-2's use of registers). Columns 16 k.. are step k.
template <int kI, int kJ>
__device__ __forceinline__ void Fragments(uint32_t (&a)[kI][kJ / 2][4], const float (&d)[kI][kJ][4]) {
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j) {
      a[i][j / 2][j % 2 * 2] = PackBf16(d[i][j][0], d[i][j][1]);
      a[i][j / 2][j % 2 * 2 + 1] = PackBf16(d[i][j][2], d[i][j][3]);
    }
}

// Writes a warp's 16 kI rows of results to global memory in chunks, by way of a piece of shared memory that no other
// warp reads any more. Rows from `rows` on and columns from `depth` on are not written.
template <int kDepth, int kI>
__device__ __forceinline__ void StoreRows(const float (&d)[kI][kDepth / 8][4], unsigned char* tile, Bf16* to,
                                          int64_t stride, int first, int rows, int depth) {
  const int lane = static_cast<int>(LaneId()), group = lane / 4, pair = 2 * (lane % 4);
  __syncwarp();  // the other lanes have read what lay there
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int n = 0; n < kDepth / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<uint32_t*>(tile + ChunkOffset<kDepth>(16 * i + 8 * half + group, n) + 2 * pair) =
            PackBf16(d[i][n][2 * half], d[i][n][2 * half + 1]);
  __syncwarp();
  constexpr int kChunks = kChunksPerRow<kDepth>;
  const int chunk = lane % kChunks;
#pragma unroll
  for (int row = lane / kChunks; row < 16 * kI; row += kWarp / kChunks)
    if (first + row < rows && chunk * 8 < depth)
      StoreRaw(to + (first + row) * stride + chunk * 8, LoadRaw(tile + ChunkOffset<kDepth>(row, chunk)));
}

}  // namespace allometry::trainer::kernels
