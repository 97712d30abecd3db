#pragma once

#include "worker/trainer/kernels/flash_attention_parts.cuh"

// The backward pass. With dP = dO V^T and Delta_q = sum_d dO[q][d] O[q][d] = sum_k P[q][k] dP[q][k] (FlashAttention-2,
// section 2.3.2): dS = P (dP - Delta), dQ = dS K, dK = dS^T Q, dV = P^T dO, and the bias's gradient at a distance is
// the sum of dS along its diagonal. Two kernels, which compute S and dP twice, in place of one that would add to dQ by
// atomics from many blocks: one over queries, which also writes every row's numbers for the other, one over keys.
namespace allometry::trainer::kernels {

// What a row's probabilities and dS need: x scale and y shift, p = 2^(scale s - shift), z Delta, and in
// w the bits of its dropout key.
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

// dS of a warp's queries and a tile of keys.
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

template <int kDepth, bool kDrops>
struct KeyGradientMemory {
  using S = Sizes<kDepth>;
  static constexpr int kTile = S::template kQueryTile<kDrops>;
  using D = Distances<S::kI, kTile / 8>;
  static constexpr int kTileBytes = kTile * kTileRowBytes<kDepth>;
  static constexpr int kK = 0, kV = kK + S::kRowsBytes, kQ = kV + S::kRowsBytes, kDout = kQ + 2 * kTileBytes,
                       kStats = kDout + 2 * kTileBytes, kMask = kStats + 2 * kTile * 16, kBias = kMask + S::kRows * 4,
                       kBytes = kBias + D::kCount * 4;
};

template <int kDepth, bool kDrops>
__device__ __forceinline__ void BeginQueries(unsigned char* shared, const BackwardParams& p, int batch, int head,
                                             int tile) {
  using M = KeyGradientMemory<kDepth, kDrops>;
  const AttentionBackwardArgs& g = p.args;
  const AttentionInputs& in = g.in;
  constexpr int kTile = M::kTile;
  const int first = tile * kTile, buffer = tile % 2, queries = in.shape.queries;
  BeginRows<kDepth, kTile>(shared + M::kQ + buffer * M::kTileBytes, in.q, batch, head, first, queries, in.shape.depth);
  BeginRows<kDepth, kTile>(shared + M::kDout + buffer * M::kTileBytes, g.dout, batch, head, first, queries,
                           in.shape.depth);
  // Zeros for rows that do not exist: p = 1, whose dO and dS are 0.
  const int row = static_cast<int>(threadIdx.x) % kTile, part = static_cast<int>(threadIdx.x) / kTile;
  const float4* stats = p.row_stats + FirstRow(in.shape, batch, head);
  if (part < 2)
    CopyAsyncOrZero<8>(shared + M::kStats + ((buffer * 2 + part) * kTile + row) * 8,
                       reinterpret_cast<const float2*>(first + row < queries ? stats + first + row : stats) + part,
                       first + row < queries);
  CommitCopies();
}

// Bit (i kJ + j) 4 + x tells whether s[i][j][x], rows of keys, is kept.
template <int kI, int kJ>
__device__ __forceinline__ uint32_t KeptBits(const float2* deltas, int first_key, uint32_t rate) {
  static_assert(kI * kJ * 4 <= 32);
  uint32_t kept = 0;
#pragma unroll
  for (int j = 0; j < kJ; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const uint32_t row_key = __float_as_uint(deltas[8 * j + e].y);
#pragma unroll
      for (int r = 0; r < 2 * kI; ++r) {
        const int key = first_key + 8 * r;
        const uint32_t bits = DropoutBits(row_key, static_cast<uint32_t>(key) / 2);
        kept |= static_cast<uint32_t>(DropoutKeeps(bits, key % 2, rate)) << ((r / 2 * kJ + j) * 4 + r % 2 * 2 + e);
      }
    }
  return kept;
}

// As FirstScores, of rows of keys: the distance is base - 8 t - e, and the mask is that of the lane's rows.
template <int kI, int kJ>
__device__ __forceinline__ void FirstKeyScores(float (&s)[kI][kJ][4], const float* bias, const float* mask) {
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int x = 0; x < 4; ++x) s[i][j][x] = bias ? bias[-8 * (j - x / 2 - 2 * i) - x % 2] : 0.0f;
  if (!mask) return;
#pragma unroll
  for (int r = 0; r < 2 * kI; ++r) {
    const float hidden = mask[8 * r];
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) s[r / 2][j][r % 2 * 2 + e] += hidden;
  }
}

// P of a warp's keys (rows) and of a tile of queries, in place of s: 0 where a key lies behind its query.
template <int kI, int kJ>
__device__ __forceinline__ void KeyProbabilities(float (&s)[kI][kJ][4], const float2* scales, bool causal,
                                                 int first_key, int first_query) {
#pragma unroll
  for (int j = 0; j < kJ; ++j) {
    const float4 both = *reinterpret_cast<const float4*>(scales + 8 * j);  // of the lane's two queries
#pragma unroll
    for (int i = 0; i < kI; ++i) {
      s[i][j][0] = Exp2(fmaf(s[i][j][0], both.x, -both.y));
      s[i][j][1] = Exp2(fmaf(s[i][j][1], both.z, -both.w));
      s[i][j][2] = Exp2(fmaf(s[i][j][2], both.x, -both.y));
      s[i][j][3] = Exp2(fmaf(s[i][j][3], both.z, -both.w));
    }
  }
  if (!causal || first_key + 16 * kI <= first_query + 1) return;
  const LanePlace at;
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j)
#pragma unroll
      for (int x = 0; x < 4; ++x)
        if (first_key + 16 * i + x / 2 * 8 + at.group > first_query + 8 * j + at.pair + x % 2) s[i][j][x] = 0.0f;
}

// Zeros in fragments where KeptBits has none.
template <int kI, int kSteps>
__device__ __forceinline__ void DropFragments(uint32_t (&a)[kI][kSteps][4], uint32_t kept) {
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int k = 0; k < kSteps; ++k)
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        const uint32_t bits = kept >> (((i * kSteps + k) * 4 + x) * 2);
        a[i][k][x] &= (bits & 1 ? 0xffffu : 0u) | (bits & 2 ? 0xffff0000u : 0u);
      }
}

// A warp's keys against a tile of queries. P is kept as bf16 only, the form in which
// dV's product takes it: as float32 it would not fit into the registers beside dK, dV and dP.
template <int kDepth, bool kDrops>
__device__ __forceinline__ void KeyGradientStep(unsigned char* shared, const BackwardParams& p, const LanePlace& at,
                                                int first_key, int tile, float (&dk)[Sizes<kDepth>::kI][kDepth / 8][4],
                                                float (&dv)[Sizes<kDepth>::kI][kDepth / 8][4]) {
  using M = KeyGradientMemory<kDepth, kDrops>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI, kJ = M::kTile / 8;
  const AttentionInputs& in = p.args.in;
  const int warp_bytes = at.warp * S::kWarpRows * kTileRowBytes<kDepth>;
  const int first_query = tile * M::kTile, tile_bytes = tile % 2 * M::kTileBytes;
  const auto* scales = reinterpret_cast<const float2*>(shared + M::kStats) + tile % 2 * 2 * M::kTile + at.pair;
  const auto* deltas = scales + M::kTile;
  uint32_t probabilities[kI][kJ / 2][4];
  {
    const float* bias = nullptr;
    if (in.table)
      bias = reinterpret_cast<const float*>(shared + M::kBias) + M::D::kReach +
             M::D::Clamped(first_key + at.group - first_query - at.pair, false);
    float s[kI][kJ][4];
    FirstKeyScores(
        s, bias,
        in.mask ? reinterpret_cast<const float*>(shared + M::kMask) + at.warp * S::kWarpRows + at.group : nullptr);
    MultiplyByRows<kDepth>(s, RowsFirst<kDepth>(shared + M::kK + warp_bytes),
                           ChunksFirst<kDepth>(shared + M::kQ + tile_bytes));
    KeyProbabilities(s, scales, in.shape.causal, first_key, first_query);
    Fragments(probabilities, s);
  }
  uint32_t kept = ~0u;
  float scale = 1.0f;
  if (kDrops) {
    kept = KeptBits<kI, kJ>(deltas, first_key + at.group, in.dropout.rate);
    scale = DropoutScale(in.dropout.rate);
    uint32_t dropped[kI][kJ / 2][4];
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int k = 0; k < kJ / 2; ++k)
#pragma unroll
        for (int x = 0; x < 4; ++x) dropped[i][k][x] = probabilities[i][k][x];
    DropFragments(dropped, kept);
    MultiplyByColumns<kDepth>(dv, dropped, RowsFirst<kDepth>(shared + M::kDout + tile_bytes));
  } else {
    MultiplyByColumns<kDepth>(dv, probabilities, RowsFirst<kDepth>(shared + M::kDout + tile_bytes));
  }

  float ds[kI][kJ][4] = {};
  MultiplyByRows<kDepth>(ds, RowsFirst<kDepth>(shared + M::kV + warp_bytes),
                         ChunksFirst<kDepth>(shared + M::kDout + tile_bytes));
#pragma unroll
  for (int j = 0; j < kJ; ++j) {
    const float delta[2] = {deltas[8 * j].x, deltas[8 * j + 1].x};
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        const uint32_t pair = probabilities[i][j / 2][j % 2 * 2 + x / 2];
        const float share = kept >> ((i * kJ + j) * 4 + x) & 1 ? scale : 0.0f;
        ds[i][j][x] = (x % 2 ? WidenHigh(pair) : WidenLow(pair)) * fmaf(ds[i][j][x], share, -delta[x % 2]);
      }
  }
  Fragments(probabilities, ds);
  MultiplyByColumns<kDepth>(dk, probabilities, RowsFirst<kDepth>(shared + M::kQ + tile_bytes));
}

template <int kDepth, bool kDrops>
__global__ void __launch_bounds__(kAttentionThreads)
    AttentionKeyGradientKernel(const ALLO_GRID_CONSTANT BackwardParams p) {
  using M = KeyGradientMemory<kDepth, kDrops>;
  using S = Sizes<kDepth>;
  constexpr int kI = S::kI;
  unsigned char* shared = DynamicShared();
  const AttentionInputs& in = p.args.in;
  const AttentionShape& shape = in.shape;
  const AttentionBackwardArgs& g = p.args;
  const LanePlace at;
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int block_key = static_cast<int>(blockIdx.x) * S::kRows, first_key = block_key + at.warp * S::kWarpRows;
  const int tiles = CeilDiv(shape.queries, M::kTile);
  // Causal: the first queries see none of the block's keys; where there are no others, its gradients are 0.
  const int first_tile = shape.causal ? Min(block_key / M::kTile, tiles) : 0;

  BeginRows<kDepth, S::kRows>(shared + M::kK, in.k, batch, head, block_key, shape.keys, shape.depth);
  BeginRows<kDepth, S::kRows>(shared + M::kV, in.v, batch, head, block_key, shape.keys, shape.depth);
  if (first_tile < tiles) BeginQueries<kDepth, kDrops>(shared, p, batch, head, first_tile);
  CommitCopies();  // those of K and V, where there is no tile
  if (in.table) FillBias(reinterpret_cast<float*>(shared + M::kBias), M::D::kReach, p, head);
  if (in.mask) FillMask(reinterpret_cast<float*>(shared + M::kMask), S::kRows, in, batch, block_key);

  float dk[kI][kDepth / 8][4] = {}, dv[kI][kDepth / 8][4] = {};
  for (int tile = first_tile; tile < tiles; ++tile) {
    WaitCopies<0>();
    __syncthreads();
    if (tile + 1 < tiles) BeginQueries<kDepth, kDrops>(shared, p, batch, head, tile + 1);
    const int first_query = tile * M::kTile;
    if (shape.causal && first_key >= first_query + M::kTile) continue;
    KeyGradientStep<kDepth, kDrops>(shared, p, at, first_key, tile, dk, dv);
  }
  if (kDrops) {
    const float scale = DropoutScale(in.dropout.rate);
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int n = 0; n < kDepth / 8; ++n)
#pragma unroll
        for (int x = 0; x < 4; ++x) dv[i][n][x] *= scale;
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
