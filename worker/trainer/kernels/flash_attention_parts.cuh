#pragma once

#include <cmath>

#include "worker/trainer/kernels/flash_attention.h"
#include "worker/trainer/kernels/matrix_tiles.h"
#include "worker/trainer/kernels/relative_buckets.h"

// The kernels of flash_attention.h. A block is four warps; each warp owns 16 kI rows of the block's matrix and goes
// over the other side's rows in tiles, which cp.async brings one tile ahead. With group = lane / 4 and
// pair = 2 (lane % 4), a lane holds of a product of 16 kI x 8 kJ, as mma.m16n8k16 leaves it,
//   d[i][j][2 half + e] = D[16 i + 8 half + group][8 j + pair + e].
// Where rows and columns are queries and keys, the element's distance is base + 8 t + e with t = j - half - 2 i and one
// base a lane: many elements of a lane share a distance, so that the bias costs one look-up for each t, e, and the
// bias's gradient is summed over them in registers first.
//
// Per element s = q k + bias + mask, p = 2^(s log2(e) - shift). A row all of whose keys are hidden has a scale of 0 in
// log2(e)'s place: every p is then the same whatever s is.
namespace allometry::trainer::kernels {

#ifdef __CUDACC__
#define ALLO_GRID_CONSTANT __grid_constant__
#else
#define ALLO_GRID_CONSTANT
#endif

constexpr int kAttentionThreads = 128, kAttentionWarps = kAttentionThreads / kWarp;
constexpr int kBuckets = kAttentionBuckets, kFar = static_cast<int>(kMaxRelativeDistance);
constexpr float kHidden = -3e38f;      // the lowest mask: adding a score leaves it finite
constexpr float kHiddenFrom = -1e30f;  // a row whose greatest score is no more than this sees nothing
constexpr float kLog2E = 1.4426950408889634f;
static_assert(kBuckets == kRelativeBuckets);

// What every kernel reads, by value: 257 of its bytes are the bucket of each distance -128..128.
template <typename Args>
struct AttentionParams {
  Args args;
  float4* row_stats;      // [batch, heads, queries], see StatsOf; backward
  float* table_partials;  // [heads, batch, blocks of queries, 32]; backward
  uint8_t buckets[2 * kFar + 1];
};
using ForwardParams = AttentionParams<AttentionForwardArgs>;
using BackwardParams = AttentionParams<AttentionBackwardArgs>;

// Sizes by depth. Rows is what a block owns (queries, or keys in the keys' gradient), a tile what it has of the other
// side at once.
// A warp's accumulators are its registers' largest part: kI (depth / 8) 4 of them for each matrix that it sums.
template <int kDepth>
struct Sizes {
  static constexpr int kI = kDepth <= 64 ? 2 : 1;
  static constexpr int kWarpRows = 16 * kI, kRows = kAttentionWarps * kWarpRows;
  static constexpr int kForwardTile = 64;  // keys
  static constexpr int kKeyTile = 32;      // keys, for the queries' gradient
  // Queries, for the keys' gradient. 32 with dropout's random bits would not fit into the registers at a depth of 64.
  template <bool kDrops>
  static constexpr int kQueryTile = kDrops&& kDepth == 64 ? 16 : 32;
  static constexpr int kRowsBytes = kRows * kTileRowBytes<kDepth>;
};

// ---- Distances. For kI x kJ pieces of rows x columns, t goes from 1 - 2 kI to kJ - 1. A base farther out than kFar is
// as good as one at kFar: the last buckets have no end. So a table of 2 kReach + 1 distances serves all places.
template <int kI, int kJ>
struct Distances {
  static constexpr int kLow = 8 * (2 * kI - 1), kHigh = 8 * (kJ - 1) + 1;
  static constexpr int kReach = kFar + kLow + kHigh;
  static constexpr int kCount = 2 * kReach + 1;
  // Queries are rows and keys columns (distance base + 8 t + e), or the other way round (base - 8 t - e).
  static __device__ __forceinline__ int Clamped(int base, bool rows_are_queries) {
    const int low = rows_are_queries ? kHigh : kLow, high = rows_are_queries ? kLow : kHigh;
    return Min(Max(base, -kFar - low), kFar + high);
  }
};

template <typename Params>
__device__ __forceinline__ int BucketOf(const Params& p, int distance) {
  return p.buckets[Min(Max(distance, -kFar), kFar) + kFar];
}

// bias[i] is that of distance i - kReach.
template <typename Params>
__device__ __forceinline__ void FillBias(float* bias, int reach, const Params& p, int head) {
  const AttentionInputs& in = p.args.in;
  for (int i = static_cast<int>(threadIdx.x); i <= 2 * reach; i += kAttentionThreads) {
    const int at = BucketOf(p, i - reach) * in.shape.heads + head;
    bias[i] = in.table_type == DataType::kBfloat16 ? Widen(static_cast<const Bf16*>(in.table)[at])
                                                   : static_cast<const float*>(in.table)[at];
  }
}

// The scores' first value, bias + mask. `bias` is the table at the lane's base, `columns_mask` the mask at the lane's
// pair; either may be null.
template <int kI, int kJ>
__device__ __forceinline__ void FirstScores(float (&s)[kI][kJ][4], const float* bias, const float* columns_mask) {
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int x = 0; x < 4; ++x) s[i][j][x] = bias ? bias[8 * (j - x / 2 - 2 * i) + x % 2] : 0.0f;
  if (!columns_mask) return;
#pragma unroll
  for (int j = 0; j < kJ; ++j) {
    const float2 mask = *reinterpret_cast<const float2*>(columns_mask + 8 * j);
#pragma unroll
    for (int i = 0; i < kI; ++i) {
      s[i][j][0] += mask.x;
      s[i][j][1] += mask.y;
      s[i][j][2] += mask.x;
      s[i][j][3] += mask.y;
    }
  }
}

// `count` values of the mask from key `first` on; keys that do not exist are hidden.
__device__ __forceinline__ void FillMask(float* to, int count, const AttentionInputs& in, int batch, int first) {
  const int key = first + static_cast<int>(threadIdx.x), keys = in.shape.keys;
  if (static_cast<int>(threadIdx.x) >= count) return;
  to[threadIdx.x] = key < keys ? fmaxf(in.mask[static_cast<int64_t>(batch) * keys + key], kHidden) : kHidden;
}

// How many keys, the first ones, a query may see.
__device__ __forceinline__ int SeenKeys(const AttentionShape& shape, int query) {
  return shape.causal ? Min(shape.keys, query + 1) : shape.keys;
}

// Sets what lies at or behind a row's end, counted from the lane's first column. Apart from the arithmetic, so that the
// many tiles without an end in them skip it as a whole.
template <int kI, int kJ>
__device__ __forceinline__ void Exclude(float (&s)[kI][kJ][4], const int (&ends)[2 * kI], float value) {
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int x = 0; x < 4; ++x)
        if (8 * j + x % 2 >= ends[2 * i + x / 2]) s[i][j][x] = value;
}

template <typename T>
__device__ __forceinline__ T* HeadOf(const HeadRows<T>& rows, int batch, int head) {
  return rows.data + batch * rows.strides.batch + head * rows.strides.head;
}
__device__ __forceinline__ int64_t FirstRow(const AttentionShape& shape, int batch, int head) {
  return (static_cast<int64_t>(batch) * shape.heads + head) * shape.queries;
}

template <int kDepth, int kRows>
__device__ __forceinline__ void BeginRows(unsigned char* tile, const HeadRows<const Bf16>& of, int batch, int head,
                                          int first, int rows, int depth) {
  CopyTile<kDepth, kRows, kAttentionThreads>(tile, HeadOf(of, batch, head), of.strides.row, first, rows, depth);
}

// The key of a query's row for DropoutBits.
__device__ __forceinline__ uint32_t RowKeyOf(const AttentionInputs& in, int batch, int head, int query) {
  const int64_t example = in.dropout.first_example + batch;
  return DropoutRowKey(*in.dropout.seed, in.dropout.layer,
                       static_cast<uint64_t>((example * in.shape.heads + head) * in.shape.queries + query));
}

// Drops from rows of queries, the lane's first column being key `first_key` (even): what is kept is multiplied.
template <int kI, int kJ>
__device__ __forceinline__ void DropFromRows(float (&s)[kI][kJ][4], const uint32_t (&row_keys)[2 * kI], int first_key,
                                             uint32_t rate, float scale) {
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r)
#pragma unroll
    for (int j = 0; j < kJ; ++j) {
      const uint32_t bits = DropoutBits(row_keys[r], static_cast<uint32_t>(first_key / 2 + 4 * j));
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[r / 2][j][r % 2 * 2 + e];
        x = DropoutKeeps(bits, e, rate) ? x * scale : 0.0f;
      }
    }
}

// Of the four lanes that share a row.
__device__ __forceinline__ float RowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float RowSum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Where this lane is.
struct LanePlace {
  int warp, group, pair;
  __device__ __forceinline__ LanePlace()
      : warp(static_cast<int>(threadIdx.x) / kWarp),
        group(static_cast<int>(threadIdx.x) % kWarp / 4),
        pair(2 * (static_cast<int>(threadIdx.x) % 4)) {}
};

}  // namespace allometry::trainer::kernels
