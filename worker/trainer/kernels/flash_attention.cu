#include "worker/trainer/kernels/flash_attention.cuh"

namespace allometry::trainer::kernels {
namespace {

// Of all depths, so that the workspace's size needs no more than the shape.
constexpr int kFewestRows = Sizes<128>::kRows;

AttentionParams ParamsOf(const AttentionInputs& inputs) {
  AttentionParams p{};
  p.in = inputs;
  for (int distance = -kFar; distance <= kFar; ++distance)
    p.buckets[distance + kFar] = static_cast<uint8_t>(RelativeBucket(distance, !inputs.shape.causal));
  return p;
}

dim3 GridOf(const AttentionShape& shape, int rows, int rows_per_block) {
  return dim3(static_cast<unsigned>(CeilDiv(rows, rows_per_block)), static_cast<unsigned>(shape.heads),
              static_cast<unsigned>(shape.batch));
}

template <typename Function>
void WithDepth(int depth, const Function& function) {
  if (depth <= 32)
    function(std::integral_constant<int, 32>());
  else if (depth <= 64)
    function(std::integral_constant<int, 64>());
  else
    function(std::integral_constant<int, 128>());
}

bool Divides8(const HeadStrides& strides) {
  return strides.batch % 8 == 0 && strides.head % 8 == 0 && strides.row % 8 == 0;
}

size_t RowStatsBytes(const AttentionShape& shape) {
  return static_cast<size_t>(shape.batch) * shape.heads * shape.queries * sizeof(float4);
}

template <int kDepth>
void Backward(AttentionParams& p, Stream stream) {
  using S = Sizes<kDepth>;
  const AttentionShape& shape = p.in.shape;
  const dim3 query_grid = GridOf(shape, shape.queries, S::kRows), block(kAttentionThreads);
  const bool want_table = p.gradients.dtable != nullptr;
  Launch(stream, AttentionQueryGradientKernel<kDepth>, query_grid, block,
         want_table ? QueryGradientMemory<kDepth>::kBytes : QueryGradientMemory<kDepth>::kBytesWithoutTable, p);
  Launch(stream, AttentionKeyGradientKernel<kDepth>, GridOf(shape, shape.keys, S::kRows), block,
         KeyGradientMemory<kDepth>::kBytes, p);
  if (want_table)
    Launch(stream, AttentionTableGradientKernel, dim3(static_cast<unsigned>(shape.heads)), dim3(kTableThreads),
           kTableThreads * sizeof(float), p.table_partials, static_cast<int64_t>(query_grid.x) * shape.batch,
           p.gradients.dtable, shape.heads, p.gradients.add_to_table);
}

}  // namespace

const char* FlashAttentionRefuses(const AttentionInputs& inputs) {
  const AttentionShape& shape = inputs.shape;
  if (shape.batch < 1 || shape.heads < 1 || shape.queries < 1 || shape.keys < 1) return "an empty tensor";
  if (shape.batch > 65535 || shape.heads > 65535) return "more than 65535 examples or heads";
  if (shape.depth < 8 || shape.depth > 128 || shape.depth % 8 != 0) return "a depth that is no multiple of 8 up to 128";
  if (!Divides8(inputs.q_strides) || !Divides8(inputs.k_strides) || !Divides8(inputs.v_strides) ||
      !IsAligned(inputs.q) || !IsAligned(inputs.k) || !IsAligned(inputs.v))
    return "rows that are not aligned to 16 bytes";
  return nullptr;
}

void FlashAttentionForward(const AttentionInputs& inputs, Bf16* out, const HeadStrides& out_strides, float* lse,
                           Stream stream) {
  AttentionParams p = ParamsOf(inputs);
  p.out = out;
  p.out_strides = out_strides;
  p.lse = lse;
  WithDepth(inputs.shape.depth, [&]<int kDepth>(std::integral_constant<int, kDepth>) {
    Launch(stream, AttentionForwardKernel<kDepth>, GridOf(inputs.shape, inputs.shape.queries, Sizes<kDepth>::kRows),
           dim3(kAttentionThreads), ForwardMemory<kDepth>::kBytes, p);
  });
}

size_t FlashAttentionWorkspaceBytes(const AttentionShape& shape) {
  const auto blocks = static_cast<size_t>(shape.batch) * CeilDiv(shape.queries, kFewestRows);
  return RowStatsBytes(shape) + blocks * shape.heads * kBuckets * sizeof(float);
}

void FlashAttentionBackward(const AttentionInputs& inputs, const AttentionGradients& gradients, void* workspace,
                            Stream stream) {
  AttentionParams p = ParamsOf(inputs);
  p.gradients = gradients;
  if (!inputs.table) p.gradients.dtable = nullptr;
  p.row_stats = static_cast<float4*>(workspace);
  p.table_partials = reinterpret_cast<float*>(static_cast<unsigned char*>(workspace) + RowStatsBytes(inputs.shape));
  WithDepth(inputs.shape.depth,
            [&]<int kDepth>(std::integral_constant<int, kDepth>) { Backward<kDepth>(p, stream); });
}

}  // namespace allometry::trainer::kernels
