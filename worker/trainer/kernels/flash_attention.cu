#include <type_traits>

#include "worker/trainer/kernels/flash_attention.h"
#include "worker/trainer/kernels/flash_attention_backward.cuh"
#include "worker/trainer/kernels/flash_attention_forward.cuh"
#include "worker/trainer/kernels/kernel_table.h"

namespace allometry::trainer::kernels {
namespace {

template <typename Args>
AttentionParams<Args> ParamsOf(const Args& args) {
  AttentionParams<Args> p{};
  p.args = args;
  for (int distance = -kFar; distance <= kFar; ++distance)
    p.buckets[distance + kFar] = static_cast<uint8_t>(RelativeBucket(distance, !args.in.shape.causal));
  return p;
}

dim3 GridOf(const AttentionShape& shape, int rows, int rows_per_block) {
  return dim3(static_cast<unsigned>(CeilDiv(rows, rows_per_block)), static_cast<unsigned>(shape.heads),
              static_cast<unsigned>(shape.batch));
}

// function.operator()<kDepth>() with the depth that this one is padded to.
template <typename Function>
void WithDepth(int depth, const Function& function) {
  if (depth <= 32)
    function(std::integral_constant<int, 32>());
  else if (depth <= 64)
    function(std::integral_constant<int, 64>());
  else
    function(std::integral_constant<int, 128>());
}

void AttentionForward(Stream stream, const AttentionForwardArgs& args) {
  const AttentionShape& shape = args.in.shape;
  WithDepth(shape.depth, [&](auto depth) {
    constexpr int kDepth = depth();
    Launch(stream, &AttentionForwardKernel<kDepth>, GridOf(shape, shape.queries, Sizes<kDepth>::kRows),
           dim3(kAttentionThreads), ForwardMemory<kDepth>::kBytes, ParamsOf(args));
  });
}

template <int kDepth>
void Backward(Stream stream, const BackwardParams& p) {
  constexpr int kRows = Sizes<kDepth>::kRows;
  static_assert(kRows == AttentionBlockRows(kDepth));
  const AttentionShape& shape = p.args.in.shape;
  const dim3 queries = GridOf(shape, shape.queries, kRows), keys = GridOf(shape, shape.keys, kRows),
             block(kAttentionThreads);
  using QueryMemory = QueryGradientMemory<kDepth>;
  Launch(stream, &AttentionQueryGradientKernel<kDepth>, queries, block,
         p.args.dtable ? QueryMemory::kBytes : QueryMemory::kBytesWithoutTable, p);
  if (p.args.in.dropout.seed)
    Launch(stream, &AttentionKeyGradientKernel<kDepth, true>, keys, block, KeyGradientMemory<kDepth, true>::kBytes, p);
  else
    Launch(stream, &AttentionKeyGradientKernel<kDepth, false>, keys, block, KeyGradientMemory<kDepth, false>::kBytes,
           p);
  if (p.args.dtable)
    Launch(stream, &AttentionTableGradientKernel, dim3(static_cast<unsigned>(shape.heads)), dim3(kTableThreads),
           kTableThreads * sizeof(float), p.table_partials, static_cast<int64_t>(queries.x) * shape.batch,
           p.args.dtable, shape.heads, p.args.add_to_table);
}

void AttentionBackward(Stream stream, const AttentionBackwardArgs& args) {
  BackwardParams p = ParamsOf(args);
  if (!args.in.table) p.args.dtable = nullptr;
  auto* workspace = static_cast<unsigned char*>(args.workspace);
  p.row_stats = reinterpret_cast<float4*>(workspace);
  p.table_partials = reinterpret_cast<float*>(workspace + AttentionRowsBytes(args.in.shape));
  WithDepth(args.in.shape.depth, [&](auto depth) { Backward<depth()>(stream, p); });
}

}  // namespace

void AddAttentionKernels(KernelTable& table) {
  table.attention_forward = &AttentionForward;
  table.attention_backward = &AttentionBackward;
}

}  // namespace allometry::trainer::kernels
