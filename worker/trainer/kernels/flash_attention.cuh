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
constexpr int kBuckets = static_cast<int>(kRelativeBuckets), kFar = static_cast<int>(kMaxRelativeDistance);
constexpr float kHidden = -3e38f;      // the lowest mask: adding a score leaves it finite
constexpr float kHiddenFrom = -1e30f;  // a row whose greatest score is no more than this sees nothing
constexpr float kLog2E = 1.4426950408889634f;

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

// Sizes by depth. Rows is what a block owns (queries, or keys in the keys' gradient), Other a tile of the other side.
// A warp's accumulators are its registers' largest part: kI (depth / 8) 4 of them for each matrix that it sums.
template <int kDepth>
struct Sizes {
  static constexpr int kI = kDepth <= 64 ? 2 : 1;
  static constexpr int kWarpRows = 16 * kI, kRows = kAttentionWarps * kWarpRows;
  static constexpr int kForwardTile = 64;                    // keys
  static constexpr int kKeyTile = 32;                        // keys, for the queries' gradient
  static constexpr int kQueryTile = kDepth <= 64 ? 64 : 32;  // queries, for the keys' gradient,
  static constexpr int kQueryStep = kDepth <= 32 ? 32 : 16;  // of which so many are in registers at once
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

// ---- Forward (FlashAttention-2, algorithm 1).

template <int kDepth>
struct ForwardMemory {
  using S = Sizes<kDepth>;
  using D = Distances<S::kI, S::kForwardTile / 8>;
  static constexpr int kTileBytes = S::kForwardTile * kTileRowBytes<kDepth>;
  static constexpr int kQ = 0, kK = kQ + S::kRowsBytes, kV = kK + 2 * kTileBytes, kMask = kV + 2 * kTileBytes,
                       kBias = kMask + 2 * S::kForwardTile * 4, kBytes = kBias + D::kCount * 4;
};

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

// One tile's scores enter the running softmax: s becomes p, and what was summed before is scaled to the new maximum.
template <int kI, int kJ, int kN>
__device__ __forceinline__ void SoftmaxStep(float (&s)[kI][kJ][4], float (&max)[2 * kI], float (&sum)[2 * kI],
                                            float (&out)[kI][kN][4], bool edge, const int (&seen)[2 * kI]) {
  if (edge) Exclude(s, seen, -INFINITY);
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) {
    const int i = r / 2, half = r % 2;
    float top = max[r];
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) top = fmaxf(top, s[i][j][2 * half + e]);
    top = RowMax(top);
    const float scale = top <= kHiddenFrom ? 0.0f : kLog2E, shift = top * scale;
    const float fade = Exp2((max[r] - top) * kLog2E);
    max[r] = top;
    sum[r] *= fade;
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[i][j][2 * half + e];
        x = Exp2(fmaf(x, scale, -shift));
      }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      out[i][n][2 * half] *= fade;
      out[i][n][2 * half + 1] *= fade;
    }
  }
  if (edge) Exclude(s, seen, 0.0f);  // of a row that sees nothing yet: minus infinity times a scale of 0
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r)
#pragma unroll
    for (int j = 0; j < kJ; ++j) sum[r] += s[r / 2][j][r % 2 * 2] + s[r / 2][j][r % 2 * 2 + 1];
}

template <int kDepth>
__device__ __forceinline__ void BeginKeys(unsigned char* shared, const ForwardParams& p, int batch, int head,
                                          int tile) {
  using M = ForwardMemory<kDepth>;
  using S = Sizes<kDepth>;
  const AttentionInputs& in = p.args.in;
  const int first = tile * S::kForwardTile, buffer = tile % 2;
  BeginRows<kDepth, S::kForwardTile>(shared + M::kK + buffer * M::kTileBytes, in.k, batch, head, first, in.shape.keys,
                                     in.shape.depth);
  BeginRows<kDepth, S::kForwardTile>(shared + M::kV + buffer * M::kTileBytes, in.v, batch, head, first, in.shape.keys,
                                     in.shape.depth);
  if (in.mask)
    FillMask(reinterpret_cast<float*>(shared + M::kMask) + buffer * S::kForwardTile, S::kForwardTile, in, batch, first);
  CommitCopies();
}

// A warp's queries against one tile of keys.
template <int kDepth>
__device__ __forceinline__ void ForwardTile(unsigned char* shared, const ForwardParams& p, const LanePlace& at,
                                            int first_query, int tile, float (&max)[2 * Sizes<kDepth>::kI],
                                            float (&sum)[2 * Sizes<kDepth>::kI],
                                            float (&out)[Sizes<kDepth>::kI][kDepth / 8][4]) {
  using M = ForwardMemory<kDepth>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI, kJ = S::kForwardTile / 8;
  const AttentionInputs& in = p.args.in;
  const int first_key = tile * S::kForwardTile, buffer = tile % 2;
  const float* bias = nullptr;
  if (in.table)
    bias = reinterpret_cast<const float*>(shared + M::kBias) + M::D::kReach +
           M::D::Clamped(first_key + at.pair - first_query - at.group, true);
  const float* mask = nullptr;
  if (in.mask) mask = reinterpret_cast<const float*>(shared + M::kMask) + buffer * S::kForwardTile + at.pair;
  float s[kI][kJ][4];
  FirstScores(s, bias, mask);
  MultiplyByRows<kDepth>(s, RowsFirst<kDepth>(shared + M::kQ + at.warp * S::kWarpRows * kTileRowBytes<kDepth>),
                         ChunksFirst<kDepth>(shared + M::kK + buffer * M::kTileBytes));
  const int last = first_key + S::kForwardTile;
  const bool edge = last > in.shape.keys || (in.shape.causal && last > first_query + 1);
  int seen[2 * kI];
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) seen[r] = SeenKeys(in.shape, first_query + 8 * r + at.group) - first_key - at.pair;
  SoftmaxStep(s, max, sum, out, edge, seen);
  if (in.dropout.seed) {
    uint32_t row_keys[2 * kI];
#pragma unroll
    for (int r = 0; r < 2 * kI; ++r)
      row_keys[r] =
          RowKeyOf(in, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y), first_query + 8 * r + at.group);
    DropFromRows(s, row_keys, first_key + at.pair, in.dropout.rate, DropoutScale(in.dropout.rate));
  }
  uint32_t a[kI][kJ / 2][4];
  Fragments(a, s);
  MultiplyByColumns<kDepth>(out, a, RowsFirst<kDepth>(shared + M::kV + buffer * M::kTileBytes));
}

template <int kDepth>
__global__ void __launch_bounds__(kAttentionThreads) AttentionForwardKernel(const ALLO_GRID_CONSTANT ForwardParams p) {
  using M = ForwardMemory<kDepth>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI;
  unsigned char* shared = DynamicShared();
  const AttentionInputs& in = p.args.in;
  const AttentionShape& shape = in.shape;
  const LanePlace at;
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int block_query = static_cast<int>(blockIdx.x) * S::kRows, first_query = block_query + at.warp * S::kWarpRows;
  const int tiles = CeilDiv(SeenKeys(shape, block_query + S::kRows - 1), S::kForwardTile);

  BeginRows<kDepth, S::kRows>(shared + M::kQ, in.q, batch, head, block_query, shape.queries, shape.depth);
  BeginKeys<kDepth>(shared, p, batch, head, 0);
  if (in.table) FillBias(reinterpret_cast<float*>(shared + M::kBias), M::D::kReach, p, head);

  float max[2 * kI], sum[2 * kI], out[kI][kDepth / 8][4] = {};
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) {
    max[r] = -INFINITY;
    sum[r] = 0.0f;
  }
  for (int tile = 0; tile < tiles; ++tile) {
    WaitCopies<0>();
    __syncthreads();  // this tile is here, and nobody reads the one before it any more
    if (tile + 1 < tiles) BeginKeys<kDepth>(shared, p, batch, head, tile + 1);
    if (shape.causal && tile * S::kForwardTile >= first_query + S::kWarpRows) continue;
    ForwardTile<kDepth>(shared, p, at, first_query, tile, max, sum, out);
  }

#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) {
    const float total = RowSum(sum[r]), share = 1.0f / total;
#pragma unroll
    for (int n = 0; n < kDepth / 8; ++n) {
      out[r / 2][n][r % 2 * 2] *= share;
      out[r / 2][n][r % 2 * 2 + 1] *= share;
    }
    const int query = first_query + 8 * r + at.group;
    if (p.args.lse && at.pair == 0 && query < shape.queries)
      p.args.lse[FirstRow(shape, batch, head) + query] = max[r] <= kHiddenFrom ? kHidden : max[r] + logf(total);
  }
  StoreRows<kDepth>(out, shared + M::kQ + at.warp * S::kWarpRows * kTileRowBytes<kDepth>,
                    HeadOf(p.args.out, batch, head), p.args.out.strides.row, first_query, shape.queries, shape.depth);
}

// ---- Backward. With dP = dO V^T and Delta_q = sum_d dO[q][d] O[q][d] = sum_k P[q][k] dP[q][k] (FlashAttention-2,
// section 2.3.2): dS = P (dP - Delta), dQ = dS K, dK = dS^T Q, dV = P^T dO, and the bias's gradient at a distance is
// the sum of dS along its diagonal. Two kernels, which compute S and dP twice, in place of one that would add to dQ by
// atomics from many blocks: one over queries, which also writes every row's numbers for the other, one over keys.

// What a row's probabilities and dS need: x scale and y shift, p = 2^(scale s - shift), z Delta, and
// in w the bits of its dropout key.
__device__ __forceinline__ float4 StatsOf(float lse, int seen_keys, float delta, uint32_t key) {
  const float bits = __uint_as_float(key);
  if (lse <= kHiddenFrom) return make_float4(0.0f, log2f(static_cast<float>(seen_keys)), delta, bits);
  return make_float4(kLog2E, lse * kLog2E, delta, bits);
}

template <int kDepth>
struct QueryGradientMemory {
  using S = Sizes<kDepth>;
  using D = Distances<S::kI, S::kKeyTile / 8>;
  static constexpr int kTileBytes = S::kKeyTile * kTileRowBytes<kDepth>;
  static constexpr int kQ = 0, kDout = kQ + S::kRowsBytes, kK = kDout + S::kRowsBytes, kV = kK + 2 * kTileBytes,
                       kStats = kV + 2 * kTileBytes, kMask = kStats + S::kRows * 16,
                       kBias = kMask + 2 * S::kKeyTile * 4, kBytesWithoutTable = kBias + D::kCount * 4,
                       kOffsets = kBytesWithoutTable, kSums = (kOffsets + D::kCount * 2 + 15) / 16 * 16,
                       kBytes = kSums + kBuckets * kAttentionThreads * 4;
};

// Delta of the block's rows, and what else they need, to shared memory and for the keys' kernel to global memory.
template <int kDepth>
__device__ __forceinline__ void FillRowStats(float4* stats, const BackwardParams& p, int batch, int head,
                                             int block_query) {
  using S = Sizes<kDepth>;
  constexpr int kChunks = kChunksPerRow<kDepth>;
  const AttentionBackwardArgs& g = p.args;
  const AttentionInputs& in = g.in;
  const Bf16 *out = HeadOf(g.out, batch, head), *dout = HeadOf(g.dout, batch, head);
  const int64_t first_row = FirstRow(in.shape, batch, head);
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
#pragma unroll 2
  for (int row = static_cast<int>(threadIdx.x) / kChunks; row < S::kRows; row += kAttentionThreads / kChunks) {
    const int query = block_query + row;
    const bool inside = query < in.shape.queries;
    float delta = 0.0f;
    if (inside && chunk * 8 < in.shape.depth) {
      float x[8], y[8];
      LoadVector(out + query * g.out.strides.row + chunk * 8, x);
      LoadVector(dout + query * g.dout.strides.row + chunk * 8, y);
#pragma unroll
      for (int i = 0; i < 8; ++i) delta = fmaf(x[i], y[i], delta);
    }
#pragma unroll
    for (int lanes = kChunks / 2; lanes > 0; lanes /= 2) delta += __shfl_xor_sync(kAllLanes, delta, lanes);
    if (chunk != 0) continue;
    // A row that does not exist has q = 0 and dO = 0: with these numbers p = 1 and dS = 0.
    float4 numbers = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (inside)
      numbers = StatsOf(g.lse[first_row + query], SeenKeys(in.shape, query), delta,
                        in.dropout.seed ? RowKeyOf(in, batch, head, query) : 0);
    stats[row] = numbers;
    if (inside) p.row_stats[first_row + query] = numbers;
  }
}

// The table's gradient within a block. Every thread has its own sum for each bucket, in shared memory, so that no two
// threads add to one place; sums over the elements of one distance reach it through registers, t by t: a step of kJ
// column pieces finishes kJ of the distances, the rest moves down to be met by the next step's.
template <int kI, int kJ>
struct DistanceSums {
  static constexpr int kOpen = 2 * kI - 1;
  float open[kOpen + kJ][2];

  __device__ __forceinline__ DistanceSums() {
#pragma unroll
    for (int t = 0; t < kOpen + kJ; ++t) open[t][0] = open[t][1] = 0.0f;
  }
  __device__ __forceinline__ void Add(const float (&ds)[kI][kJ][4]) {
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int j = 0; j < kJ; ++j)
#pragma unroll
        for (int x = 0; x < 4; ++x) open[kOpen + j - x / 2 - 2 * i][x % 2] += ds[i][j][x];
  }
  // `offsets` is the table of buckets' places at the lane's base, `sums` this thread's column of sums.
  template <int kCount>
  __device__ __forceinline__ void Flush(const uint16_t* offsets, unsigned char* sums) {
#pragma unroll
    for (int t = 0; t < kCount; ++t)
#pragma unroll
      for (int e = 0; e < 2; ++e) *reinterpret_cast<float*>(sums + offsets[8 * (t - kOpen) + e]) += open[t][e];
#pragma unroll
    for (int t = 0; t < kOpen + kJ; ++t)
#pragma unroll
      for (int e = 0; e < 2; ++e) open[t][e] = t + kCount < kOpen + kJ ? open[t + kCount][e] : 0.0f;
  }
};

// Bucket sums of the block: eight buckets a warp, 128 threads' sums each.
__device__ __forceinline__ void StoreBucketSums(const float* sums, float* to) {
  const int lane = static_cast<int>(LaneId()), warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int bucket = warp; bucket < kBuckets; bucket += kAttentionWarps) {
    const float* of = sums + bucket * kAttentionThreads + lane;
    float sum = (of[0] + of[32]) + (of[64] + of[96]);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
    if (lane == 0) to[bucket] = sum;
  }
}

template <int kDepth>
__device__ __forceinline__ void BeginBackwardKeys(unsigned char* shared, const BackwardParams& p, int batch, int head,
                                                  int tile) {
  using M = QueryGradientMemory<kDepth>;
  using S = Sizes<kDepth>;
  const AttentionInputs& in = p.args.in;
  const int first = tile * S::kKeyTile, buffer = tile % 2;
  BeginRows<kDepth, S::kKeyTile>(shared + M::kK + buffer * M::kTileBytes, in.k, batch, head, first, in.shape.keys,
                                 in.shape.depth);
  BeginRows<kDepth, S::kKeyTile>(shared + M::kV + buffer * M::kTileBytes, in.v, batch, head, first, in.shape.keys,
                                 in.shape.depth);
  if (in.mask)
    FillMask(reinterpret_cast<float*>(shared + M::kMask) + buffer * S::kKeyTile, S::kKeyTile, in, batch, first);
  CommitCopies();
}

// dS of a warp's queries and kKeyTile keys from row `sub` of the tile on, into ds.
template <int kDepth>
__device__ __forceinline__ void QueryScoreGradients(float (&ds)[Sizes<kDepth>::kI][Sizes<kDepth>::kKeyTile / 8][4],
                                                    unsigned char* shared, const BackwardParams& p, const LanePlace& at,
                                                    int first_query, int tile, const float* bias) {
  using M = QueryGradientMemory<kDepth>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI, kJ = S::kKeyTile / 8;
  const AttentionInputs& in = p.args.in;
  const int warp_bytes = at.warp * S::kWarpRows * kTileRowBytes<kDepth>;
  const int first_key = tile * S::kKeyTile, tile_bytes = tile % 2 * M::kTileBytes;
  const float* mask = nullptr;
  if (in.mask) mask = reinterpret_cast<const float*>(shared + M::kMask) + tile % 2 * S::kKeyTile + at.pair;
  float s[kI][kJ][4];
  FirstScores(s, bias, mask);
  MultiplyByRows<kDepth>(s, RowsFirst<kDepth>(shared + M::kQ + warp_bytes),
                         ChunksFirst<kDepth>(shared + M::kK + tile_bytes));
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int x = 0; x < 4; ++x) ds[i][j][x] = 0.0f;
  MultiplyByRows<kDepth>(ds, RowsFirst<kDepth>(shared + M::kDout + warp_bytes),
                         ChunksFirst<kDepth>(shared + M::kV + tile_bytes));
  const auto* stats = reinterpret_cast<const float4*>(shared + M::kStats) + at.warp * S::kWarpRows + at.group;
  if (in.dropout.seed) {
    uint32_t row_keys[2 * kI];
#pragma unroll
    for (int r = 0; r < 2 * kI; ++r) row_keys[r] = __float_as_uint(stats[8 * r].w);
    DropFromRows(ds, row_keys, first_key + at.pair, in.dropout.rate, DropoutScale(in.dropout.rate));
  }
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) {
    const float4 row = stats[8 * r];
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = ds[r / 2][j][r % 2 * 2 + e];
        x = Exp2(fmaf(s[r / 2][j][r % 2 * 2 + e], row.x, -row.y)) * (x - row.z);
      }
  }
  const int last = first_key + S::kKeyTile;
  if (last <= in.shape.keys && (!in.shape.causal || last <= first_query + 1)) return;
  int ends[2 * kI];
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) ends[r] = SeenKeys(in.shape, first_query + 8 * r + at.group) - first_key - at.pair;
  Exclude(ds, ends, 0.0f);
}

template <int kDepth>
__global__ void __launch_bounds__(kAttentionThreads)
    AttentionQueryGradientKernel(const ALLO_GRID_CONSTANT BackwardParams p) {
  using M = QueryGradientMemory<kDepth>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI, kJ = S::kKeyTile / 8;
  unsigned char* shared = DynamicShared();
  const AttentionInputs& in = p.args.in;
  const AttentionShape& shape = in.shape;
  const AttentionBackwardArgs& g = p.args;
  const LanePlace at;
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int block_query = static_cast<int>(blockIdx.x) * S::kRows, first_query = block_query + at.warp * S::kWarpRows;
  const int tiles = CeilDiv(SeenKeys(shape, block_query + S::kRows - 1), S::kKeyTile);
  auto* sums = reinterpret_cast<float*>(shared + M::kSums);
  auto* offsets = reinterpret_cast<uint16_t*>(shared + M::kOffsets);

  BeginRows<kDepth, S::kRows>(shared + M::kQ, in.q, batch, head, block_query, shape.queries, shape.depth);
  BeginRows<kDepth, S::kRows>(shared + M::kDout, g.dout, batch, head, block_query, shape.queries, shape.depth);
  BeginBackwardKeys<kDepth>(shared, p, batch, head, 0);
  if (in.table) FillBias(reinterpret_cast<float*>(shared + M::kBias), M::D::kReach, p, head);
  if (g.dtable) {
    for (int i = static_cast<int>(threadIdx.x); i < M::D::kCount; i += kAttentionThreads)
      offsets[i] = static_cast<uint16_t>(BucketOf(p, i - M::D::kReach) * kAttentionThreads * 4);
    for (int bucket = 0; bucket < kBuckets; ++bucket) sums[bucket * kAttentionThreads + threadIdx.x] = 0.0f;
  }
  FillRowStats<kDepth>(reinterpret_cast<float4*>(shared + M::kStats), p, batch, head, block_query);

  float dq[kI][kDepth / 8][4] = {};
  DistanceSums<kI, kJ> distance_sums;
  unsigned char* my_sums = reinterpret_cast<unsigned char*>(sums + threadIdx.x);
  int next_key = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    WaitCopies<0>();
    __syncthreads();
    if (tile + 1 < tiles) BeginBackwardKeys<kDepth>(shared, p, batch, head, tile + 1);
    const int first_key = tile * S::kKeyTile;
    if (first_key >= SeenKeys(shape, first_query + S::kWarpRows - 1)) continue;
    const int base = M::D::kReach + M::D::Clamped(first_key + at.pair - first_query - at.group, true);
    float ds[kI][kJ][4];
    QueryScoreGradients<kDepth>(ds, shared, p, at, first_query, tile,
                                in.table ? reinterpret_cast<const float*>(shared + M::kBias) + base : nullptr);
    if (g.dtable) {
      distance_sums.Add(ds);
      distance_sums.template Flush<kJ>(offsets + base, my_sums);
    }
    next_key = first_key + S::kKeyTile;
    uint32_t a[kI][kJ / 2][4];
    Fragments(a, ds);
    MultiplyByColumns<kDepth>(dq, a, RowsFirst<kDepth>(shared + M::kK + tile % 2 * M::kTileBytes));
  }
  StoreRows<kDepth>(dq, shared + M::kQ + at.warp * S::kWarpRows * kTileRowBytes<kDepth>, HeadOf(g.dq, batch, head),
                    g.dq.strides.row, first_query, shape.queries, shape.depth);
  if (!g.dtable) return;
  const int base = M::D::kReach + M::D::Clamped(next_key + at.pair - first_query - at.group, true);
  distance_sums.template Flush<DistanceSums<kI, kJ>::kOpen>(offsets + base, my_sums);
  __syncthreads();
  const int64_t block = (static_cast<int64_t>(head) * gridDim.z + batch) * gridDim.x + blockIdx.x;
  StoreBucketSums(sums, p.table_partials + block * kBuckets);
}

template <int kDepth>
struct KeyGradientMemory {
  using S = Sizes<kDepth>;
  using D = Distances<S::kI, S::kQueryStep / 8>;
  static constexpr int kTileBytes = S::kQueryTile * kTileRowBytes<kDepth>;
  static constexpr int kK = 0, kV = kK + S::kRowsBytes, kQ = kV + S::kRowsBytes, kDout = kQ + 2 * kTileBytes,
                       kStats = kDout + 2 * kTileBytes, kBias = kStats + 2 * S::kQueryTile * 16,
                       kBytes = kBias + D::kCount * 4;
};

template <int kDepth>
__device__ __forceinline__ void BeginQueries(unsigned char* shared, const BackwardParams& p, int batch, int head,
                                             int tile) {
  using M = KeyGradientMemory<kDepth>;
  using S = Sizes<kDepth>;
  const AttentionBackwardArgs& g = p.args;
  const AttentionInputs& in = g.in;
  const int first = tile * S::kQueryTile, buffer = tile % 2, queries = in.shape.queries;
  BeginRows<kDepth, S::kQueryTile>(shared + M::kQ + buffer * M::kTileBytes, in.q, batch, head, first, queries,
                                   in.shape.depth);
  BeginRows<kDepth, S::kQueryTile>(shared + M::kDout + buffer * M::kTileBytes, g.dout, batch, head, first, queries,
                                   in.shape.depth);
  // Zeros for rows that do not exist: p = 1, whose dO and dS are 0.
  const int row = static_cast<int>(threadIdx.x);
  const float4* stats = p.row_stats + FirstRow(in.shape, batch, head);
  if (row < S::kQueryTile)
    CopyAsync16OrZero(shared + M::kStats + (buffer * S::kQueryTile + row) * 16,
                      first + row < queries ? stats + first + row : stats, first + row < queries);
  CommitCopies();
}

// Bit (i kJ + j) 4 + x tells whether s[i][j][x], rows of keys, is kept.
template <int kI, int kJ>
__device__ __forceinline__ uint32_t KeptBits(const float4* stats, int first_key, uint32_t rate) {
  static_assert(kI * kJ * 4 <= 32);
  uint32_t kept = 0;
#pragma unroll
  for (int j = 0; j < kJ; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const uint32_t row_key = __float_as_uint(stats[8 * j + e].w);
#pragma unroll
      for (int r = 0; r < 2 * kI; ++r) {
        const int key = first_key + 8 * r;
        const uint32_t bits = DropoutBits(row_key, static_cast<uint32_t>(key) / 2);
        kept |= static_cast<uint32_t>(DropoutKeeps(bits, key % 2, rate)) << ((r / 2 * kJ + j) * 4 + r % 2 * 2 + e);
      }
    }
  return kept;
}

// A warp's keys against kQueryStep queries from row `sub` of the tile on.
template <int kDepth>
__device__ __forceinline__ void KeyGradientStep(unsigned char* shared, const BackwardParams& p, const LanePlace& at,
                                                int first_key, int first_query, int buffer, int sub,
                                                const float (&mask)[2 * Sizes<kDepth>::kI],
                                                float (&dk)[Sizes<kDepth>::kI][kDepth / 8][4],
                                                float (&dv)[Sizes<kDepth>::kI][kDepth / 8][4]) {
  using M = KeyGradientMemory<kDepth>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI, kJ = S::kQueryStep / 8;
  const AttentionInputs& in = p.args.in;
  const int warp_bytes = at.warp * S::kWarpRows * kTileRowBytes<kDepth>;
  const int tile_bytes = buffer * M::kTileBytes + sub * kTileRowBytes<kDepth>;
  const float* bias = nullptr;
  if (in.table)
    bias = reinterpret_cast<const float*>(shared + M::kBias) + M::D::kReach +
           M::D::Clamped(first_key + at.group - first_query - at.pair, false);
  float s[kI][kJ][4];
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int x = 0; x < 4; ++x)
        s[i][j][x] = (bias ? bias[-8 * (j - x / 2 - 2 * i) - x % 2] : 0.0f) + mask[2 * i + x / 2];
  MultiplyByRows<kDepth>(s, RowsFirst<kDepth>(shared + M::kK + warp_bytes),
                         ChunksFirst<kDepth>(shared + M::kQ + tile_bytes));

  const auto* stats = reinterpret_cast<const float4*>(shared + M::kStats) + buffer * S::kQueryTile + sub + at.pair;
#pragma unroll
  for (int j = 0; j < kJ; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float4 row = stats[8 * j + e];
#pragma unroll
      for (int r = 0; r < 2 * kI; ++r) {
        float& x = s[r / 2][j][r % 2 * 2 + e];
        x = Exp2(fmaf(x, row.x, -row.y));
      }
    }
  if (in.shape.causal && first_key + S::kWarpRows > first_query + 1) {
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int j = 0; j < kJ; ++j)
#pragma unroll
        for (int x = 0; x < 4; ++x)
          if (first_key + 16 * i + x / 2 * 8 + at.group > first_query + 8 * j + at.pair + x % 2) s[i][j][x] = 0.0f;
  }
  uint32_t kept = ~0u;
  if (in.dropout.seed) kept = KeptBits<kI, kJ>(stats, first_key + at.group, in.dropout.rate);
  const float scale = in.dropout.seed ? DropoutScale(in.dropout.rate) : 1.0f;

  float dp[kI][kJ][4] = {};
  MultiplyByRows<kDepth>(dp, RowsFirst<kDepth>(shared + M::kV + warp_bytes),
                         ChunksFirst<kDepth>(shared + M::kDout + tile_bytes));
#pragma unroll
  for (int j = 0; j < kJ; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float delta = stats[8 * j + e].z;
#pragma unroll
      for (int r = 0; r < 2 * kI; ++r) {
        const int i = r / 2, x = r % 2 * 2 + e;
        const float share = kept >> ((i * kJ + j) * 4 + x) & 1 ? scale : 0.0f;
        dp[i][j][x] = s[i][j][x] * fmaf(dp[i][j][x], share, -delta);
        s[i][j][x] *= share;
      }
    }
  uint32_t a[kI][kJ / 2][4];
  Fragments(a, s);
  MultiplyByColumns<kDepth>(dv, a, RowsFirst<kDepth>(shared + M::kDout + tile_bytes));
  Fragments(a, dp);
  MultiplyByColumns<kDepth>(dk, a, RowsFirst<kDepth>(shared + M::kQ + tile_bytes));
}

template <int kDepth>
__global__ void __launch_bounds__(kAttentionThreads)
    AttentionKeyGradientKernel(const ALLO_GRID_CONSTANT BackwardParams p) {
  using M = KeyGradientMemory<kDepth>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI;
  unsigned char* shared = DynamicShared();
  const AttentionInputs& in = p.args.in;
  const AttentionShape& shape = in.shape;
  const AttentionBackwardArgs& g = p.args;
  const LanePlace at;
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int block_key = static_cast<int>(blockIdx.x) * S::kRows, first_key = block_key + at.warp * S::kWarpRows;
  const int tiles = CeilDiv(shape.queries, S::kQueryTile);
  // Causal: the first queries see none of the block's keys; where there are no others, its gradients are 0.
  const int first_tile = shape.causal ? Min(block_key / S::kQueryTile, tiles) : 0;

  BeginRows<kDepth, S::kRows>(shared + M::kK, in.k, batch, head, block_key, shape.keys, shape.depth);
  BeginRows<kDepth, S::kRows>(shared + M::kV, in.v, batch, head, block_key, shape.keys, shape.depth);
  if (first_tile < tiles) BeginQueries<kDepth>(shared, p, batch, head, first_tile);
  CommitCopies();  // those of K and V, where there is no tile
  if (in.table) FillBias(reinterpret_cast<float*>(shared + M::kBias), M::D::kReach, p, head);
  float mask[2 * kI];
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) {
    const int key = first_key + 8 * r + at.group;
    mask[r] =
        in.mask && key < shape.keys ? fmaxf(in.mask[static_cast<int64_t>(batch) * shape.keys + key], kHidden) : 0.0f;
  }

  float dk[kI][kDepth / 8][4] = {}, dv[kI][kDepth / 8][4] = {};
  for (int tile = first_tile; tile < tiles; ++tile) {
    WaitCopies<0>();
    __syncthreads();
    if (tile + 1 < tiles) BeginQueries<kDepth>(shared, p, batch, head, tile + 1);
#pragma unroll 1
    for (int sub = 0; sub < S::kQueryTile; sub += S::kQueryStep) {
      const int first_query = tile * S::kQueryTile + sub;
      if (first_query >= shape.queries) break;
      if (shape.causal && first_key >= first_query + S::kQueryStep) continue;
      KeyGradientStep<kDepth>(shared, p, at, first_key, first_query, tile % 2, sub, mask, dk, dv);
    }
  }
  WaitCopies<0>();  // of a block that had no tile
  const int warp_bytes = at.warp * S::kWarpRows * kTileRowBytes<kDepth>;
  if (first_tile == tiles) __syncthreads();
  StoreRows<kDepth>(dk, shared + M::kK + warp_bytes, HeadOf(g.dk, batch, head), g.dk.strides.row, first_key, shape.keys,
                    shape.depth);
  StoreRows<kDepth>(dv, shared + M::kV + warp_bytes, HeadOf(g.dv, batch, head), g.dv.strides.row, first_key, shape.keys,
                    shape.depth);
}

// The second stage of the table's gradient: one block a head adds up the blocks' sums in a fixed order.
constexpr int kTableThreads = 1024;
__global__ void __launch_bounds__(kTableThreads)
    AttentionTableGradientKernel(const float* partials, int64_t parts, float* dtable, int heads, bool add) {
  auto* sums = reinterpret_cast<float*>(DynamicShared());
  const int bucket = static_cast<int>(threadIdx.x) % kBuckets, slice = static_cast<int>(threadIdx.x) / kBuckets,
            head = static_cast<int>(blockIdx.x);
  float sum = 0.0f;
#pragma unroll 4
  for (int64_t part = slice; part < parts; part += kTableThreads / kBuckets)
    sum += partials[(head * parts + part) * kBuckets + bucket];
  sums[threadIdx.x] = sum;
  for (int count = kTableThreads / 2; count >= kBuckets; count /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < count) sums[threadIdx.x] += sums[threadIdx.x + count];
  }
  if (slice != 0) return;
  float& to = dtable[bucket * heads + head];
  to = add ? to + sums[bucket] : sums[bucket];
}

}  // namespace allometry::trainer::kernels
