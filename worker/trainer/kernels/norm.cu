#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/norm.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kForwardWarps = 4;
constexpr int kMostBackwardWarps = 8;
constexpr int64_t kBackwardShared = 48 * 1024;

// A warp a row. The second read finds the row in the first-level cache.
template <typename T, int kCount>
__global__ void __launch_bounds__(kForwardWarps* kWarp) NormForwardKernel(NormForwardArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kForwardWarps + threadIdx.x / kWarp;
  if (row >= args.rows) return;
  const int first = static_cast<int>(threadIdx.x % kWarp) * kCount, d = static_cast<int>(args.d);
  const T* __restrict__ x = static_cast<const T*>(args.x) + row * d;
  const T* __restrict__ weight = static_cast<const T*>(args.weight);
  T* __restrict__ y = static_cast<T*>(args.y) + row * d;
  float squares = 0;
  for (int i = first; i < d; i += kWarp * kCount) {
    float v[kCount];
    LoadPack(x + i, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) squares += v[k] * v[k];
  }
  const float scale = rsqrtf(WarpSum(squares) / static_cast<float>(d) + args.epsilon);
  if (threadIdx.x % kWarp == 0) args.scale[row] = scale;
  for (int i = first; i < d; i += kWarp * kCount) {
    float v[kCount], w[kCount];
    LoadPack(x + i, v);
    LoadPack(weight + i, w);
#pragma unroll
    for (int k = 0; k < kCount; ++k) v[k] = v[k] * scale * w[k];
    StorePack(y + i, v);
  }
}

// A block takes one part of the rows, a warp every so many of them. Each lane adds its columns' dy x scale to its
// warp's own sums in shared memory; at the end the warps' sums are added in their order. With g = dy weight: dx = scale
// (g - x scale^2 mean(g x)).
template <typename T, int kCount>
__global__ void __launch_bounds__(kMostBackwardWarps* kWarp) NormBackwardKernel(NormBackwardArgs args) {
  float* sums = reinterpret_cast<float*>(DynamicShared());  // [warps][d]
  const int warps = static_cast<int>(blockDim.x) / kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first = static_cast<int>(threadIdx.x % kWarp) * kCount, d = static_cast<int>(args.d);
  const T* __restrict__ weight = static_cast<const T*>(args.weight);
  float* own = sums + warp * d;
  for (int i = first; i < d; i += kWarp * kCount)
#pragma unroll
    for (int k = 0; k < kCount; ++k) own[i + k] = 0;
  const int64_t from = args.rows * blockIdx.x / gridDim.x, to = args.rows * (blockIdx.x + 1) / gridDim.x;
  for (int64_t row = from + warp; row < to; row += warps) {
    const T* dy = static_cast<const T*>(args.dy) + row * d;
    const T* x = static_cast<const T*>(args.x) + row * d;
    const float scale = args.scale[row];
    float products = 0;
    for (int i = first; i < d; i += kWarp * kCount) {
      float g[kCount], v[kCount], w[kCount], sum[kCount];
      LoadPack(dy + i, g);
      LoadPack(x + i, v);
      LoadPack(weight + i, w);
      LoadPack(own + i, sum);
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        products += g[k] * w[k] * v[k];
        sum[k] += g[k] * v[k] * scale;
      }
      StorePack(own + i, sum);
    }
    const float pull = WarpSum(products) * scale * scale * scale / static_cast<float>(d);
    const T* residual = args.residual ? static_cast<const T*>(args.residual) + row * d : nullptr;
    T* dx = static_cast<T*>(args.dx) + row * d;
    for (int i = first; i < d; i += kWarp * kCount) {
      float g[kCount], v[kCount], w[kCount], r[kCount] = {};
      LoadPack(dy + i, g);
      LoadPack(x + i, v);
      LoadPack(weight + i, w);
      if (residual) LoadPack(residual + i, r);
#pragma unroll
      for (int k = 0; k < kCount; ++k) r[k] += g[k] * w[k] * scale - v[k] * pull;
      StorePack(dx + i, r);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < d; i += static_cast<int>(blockDim.x)) {
    float sum = 0;
    for (int w = 0; w < warps; ++w) sum += sums[w * d + i];
    args.workspace[int64_t{blockIdx.x} * d + i] = sum;
  }
}

void NormForward(Stream stream, DataType type, const NormForwardArgs& args) {
  if (args.rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.d % kVector<T> == 0 && AllAligned(args.x, args.weight, args.y), [&](auto count) {
      const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(args.rows, kForwardWarps)));
      Launch(stream, &NormForwardKernel<T, count()>, grid, dim3(kForwardWarps * kWarp), 0, args);
    });
  });
}

void NormBackward(Stream stream, DataType type, const NormBackwardArgs& args) {
  const int64_t parts = NormParts(args.rows), bytes = args.d * static_cast<int64_t>(sizeof(float));
  const int64_t warps = Max<int64_t>(1, Min<int64_t>(kMostBackwardWarps, kBackwardShared / bytes));
  WithType(type, [&]<typename T>(T) {
    const bool in_vectors =
        args.d % kVector<T> == 0 && AllAligned(args.dy, args.x, args.weight, args.residual, args.dx);
    if (parts > 0)
      WithPack<T>(in_vectors, [&](auto count) {
        Launch(stream, &NormBackwardKernel<T, count()>, dim3(static_cast<unsigned>(parts)),
               dim3(static_cast<unsigned>(warps * kWarp)), static_cast<size_t>(warps * bytes), args);
      });
    SumParts(stream, args.workspace, static_cast<T*>(args.dweight), static_cast<int>(parts), args.d);
  });
}

}  // namespace

void AddNormKernels(KernelTable& table) {
  table.norm_forward = &NormForward;
  table.norm_backward = &NormBackward;
}

}  // namespace allometry::trainer::kernels
