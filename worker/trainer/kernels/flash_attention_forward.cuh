#pragma once

#include "worker/trainer/kernels/flash_attention_parts.cuh"

// The forward pass (FlashAttention-2, algorithm 1): a block owns queries and goes over the keys.
namespace allometry::trainer::kernels {

template <int kDepth>
struct ForwardMemory {
  using S = Sizes<kDepth>;
  using D = Distances<S::kI, S::kForwardTile / 8>;
  static constexpr int kTileBytes = S::kForwardTile * kTileRowBytes<kDepth>;
  static constexpr int kQ = 0, kK = kQ + S::kRowsBytes, kV = kK + 2 * kTileBytes, kMask = kV + 2 * kTileBytes,
                       kBias = kMask + 2 * S::kForwardTile * 4, kBytes = kBias + D::kCount * 4;
};

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

}  // namespace allometry::trainer::kernels
