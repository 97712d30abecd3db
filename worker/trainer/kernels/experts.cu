#include "worker/trainer/kernels/experts.h"
#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

__global__ void __launch_bounds__(kThreads) ClearSlotsKernel(RouteArgs args) {
  const int64_t slot = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (slot < args.experts * args.batch * args.width) args.token_of_slot[slot] = -1;
}

// A warp a sequence, 32 tokens at a time: a token's place is the number of tokens for its expert before it.
__global__ void __launch_bounds__(kWarp) RouteKernel(RouteArgs args) {
  int* counts = reinterpret_cast<int*>(DynamicShared());  // [experts]
  const int64_t sequence = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  for (int64_t e = lane; e < args.experts; e += kWarp) counts[e] = 0;
  __syncwarp();
  for (int64_t from = 0; from < args.length; from += kWarp) {
    const int64_t t = from + lane, at = sequence * args.length + t;
    int expert = -1;
    if (t < args.length && (!args.token || args.token[at])) expert = static_cast<int>(args.expert[at]);
    if (expert >= args.experts) expert = -1;
    int before = 0, after = 0;  // of the same expert, among these 32
    for (int other = 0; other < kWarp; ++other) {
      const bool same = __shfl_sync(kAllLanes, expert, other) == expert;
      before += same && other < lane;
      after += same && other > lane;
    }
    const int place = expert >= 0 ? counts[expert] + before : 0;
    __syncwarp();
    if (expert >= 0 && after == 0) counts[expert] = place + 1;
    __syncwarp();
    if (t >= args.length) continue;
    const bool served = expert >= 0 && place < args.capacity && place < args.width;
    const int64_t slot = served ? (expert * args.batch + sequence) * args.width + place : -1;
    args.slot_of_token[at] = slot;
    if (served) args.token_of_slot[slot] = at;
  }
  if (args.sent)
    for (int64_t e = lane; e < args.experts; e += kWarp) args.sent[sequence * args.experts + e] = counts[e];
}

// A warp a row.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) GatherRowsKernel(GatherRowsArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= args.rows) return;
  const int64_t from = args.index[row];
  float scale = args.by_destination ? args.by_destination[row] : 1.0f;
  if (args.by_source && from >= 0) scale *= args.by_source[from];
  const T* x = static_cast<const T*>(args.x) + from * args.d;
  const T* before = args.before ? static_cast<const T*>(args.before) + row * args.d : nullptr;
  for (int64_t i = threadIdx.x % kWarp * kCount; i < args.d; i += kWarp * kCount) {
    float v[kCount] = {}, sum[kCount] = {};
    if (from >= 0) LoadPack(x + i, v);
    if (before) LoadPack(before + i, sum);
#pragma unroll
    for (int k = 0; k < kCount; ++k) sum[k] += scale * v[k];
    StorePack(static_cast<T*>(args.out) + row * args.d + i, sum);
  }
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) RowDotsKernel(RowDotsArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= args.rows) return;
  const int64_t other = args.index[row];
  float dot = 0;
  if (other >= 0)
    for (int64_t i = threadIdx.x % kWarp * kCount; i < args.d; i += kWarp * kCount) {
      float a[kCount], b[kCount];
      LoadPack(static_cast<const T*>(args.a) + row * args.d + i, a);
      LoadPack(static_cast<const T*>(args.b) + other * args.d + i, b);
#pragma unroll
      for (int k = 0; k < kCount; ++k) dot += a[k] * b[k];
    }
  dot = WarpSum(dot);
  if (threadIdx.x % kWarp == 0) args.dots[row] = dot;
}

dim3 GridFor(int64_t work, int64_t each) { return dim3(static_cast<unsigned>(CeilDiv(work, each))); }

void Route(Stream stream, const RouteArgs& args) {
  if (args.batch * args.width * args.experts > 0)
    Launch(stream, &ClearSlotsKernel, GridFor(args.batch * args.width * args.experts, kThreads), dim3(kThreads), 0,
           args);
  if (args.batch > 0)
    Launch(stream, &RouteKernel, dim3(static_cast<unsigned>(args.batch)), dim3(kWarp),
           static_cast<size_t>(args.experts) * sizeof(int), args);
}

void GatherRows(Stream stream, DataType type, const GatherRowsArgs& args) {
  if (args.rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.d % kVector<T> == 0 && AllAligned(args.x, args.before, args.out), [&](auto count) {
      Launch(stream, &GatherRowsKernel<T, count()>, GridFor(args.rows, kWarps), dim3(kThreads), 0, args);
    });
  });
}

void RowDots(Stream stream, DataType type, const RowDotsArgs& args) {
  if (args.rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.d % kVector<T> == 0 && AllAligned(args.a, args.b), [&](auto count) {
      Launch(stream, &RowDotsKernel<T, count()>, GridFor(args.rows, kWarps), dim3(kThreads), 0, args);
    });
  });
}

}  // namespace

void AddExpertKernels(KernelTable& table) {
  table.route = &Route;
  table.gather_rows = &GatherRows;
  table.row_dots = &RowDots;
}

}  // namespace allometry::trainer::kernels
