#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/rows.h"
#include "worker/trainer/kernels/softmax.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kWarps = 4;

// A warp a row: an online softmax, and a second read that the caches serve.
template <typename T, int kCount>
__global__ void __launch_bounds__(kWarps* kWarp) SoftmaxForwardKernel(SoftmaxForwardArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp, in_example = row % (args.heads * args.q);
  if (row >= args.batch * args.heads * args.q) return;
  const int first = static_cast<int>(threadIdx.x % kWarp) * kCount, n = static_cast<int>(args.k);
  T* scores = static_cast<T*>(args.scores) + row * n;
  const float* bias = args.bias ? args.bias + in_example * n : nullptr;
  const float* mask = args.mask ? args.mask + row / (args.heads * args.q) * n : nullptr;
  const auto load = [&](int i, float(&v)[kCount]) {
    float more[kCount];
    LoadPack(scores + i, v);
    if (bias) {
      LoadPack(bias + i, more);
#pragma unroll
      for (int k = 0; k < kCount; ++k) v[k] += more[k];
    }
    if (mask) {
      LoadPack(mask + i, more);
#pragma unroll
      for (int k = 0; k < kCount; ++k) v[k] += more[k];
    }
  };
  OnlineSum seen = NothingSeen();
  for (int i = first; i < n; i += kWarp * kCount) {
    float v[kCount];
    load(i, v);
    Add(seen, v);
  }
  seen = WarpMerge(seen);
  const float share = 1 / seen.sum;
  for (int i = first; i < n; i += kWarp * kCount) {
    float v[kCount];
    load(i, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) v[k] = __expf(v[k] - seen.largest) * share;
    StorePack(scores + i, v);
  }
}

// A warp takes the same row of all examples in their order, so that it alone adds to that row of the bias.
template <typename T, int kCount>
__global__ void __launch_bounds__(kWarps* kWarp) SoftmaxBackwardKernel(SoftmaxBackwardArgs args) {
  const int64_t rows = args.heads * args.q, row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  // Without a bias examples need not wait for each other: the grid's second dimension deals them out.
  if (row >= rows) return;
  const int first = static_cast<int>(threadIdx.x % kWarp) * kCount, n = static_cast<int>(args.k);
  float* dbias = args.dbias ? args.dbias + row * n : nullptr;
  for (int64_t b = blockIdx.y; b < args.batch; b += gridDim.y) {
    const T* p = static_cast<const T*>(args.p) + (b * rows + row) * n;
    T* dp = static_cast<T*>(args.dp) + (b * rows + row) * n;
    float mean = 0;
    for (int i = first; i < n; i += kWarp * kCount) {
      float v[kCount], g[kCount];
      LoadPack(p + i, v);
      LoadPack(dp + i, g);
#pragma unroll
      for (int k = 0; k < kCount; ++k) mean += v[k] * g[k];
    }
    mean = WarpSum(mean);
    for (int i = first; i < n; i += kWarp * kCount) {
      float v[kCount], g[kCount], sum[kCount] = {};
      LoadPack(p + i, v);
      LoadPack(dp + i, g);
      if (dbias && b > 0) LoadPack(dbias + i, sum);
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        g[k] = v[k] * (g[k] - mean);
        sum[k] += g[k];
      }
      StorePack(dp + i, g);
      if (dbias) StorePack(dbias + i, sum);
    }
  }
}

void SoftmaxForward(Stream stream, DataType type, const SoftmaxForwardArgs& args) {
  const int64_t rows = args.batch * args.heads * args.q;
  if (rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.k % kVector<T> == 0 && AllAligned(args.scores, args.bias, args.mask), [&](auto count) {
      const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(rows, kWarps)));
      Launch(stream, &SoftmaxForwardKernel<T, count()>, grid, dim3(kWarps * kWarp), 0, args);
    });
  });
}

void SoftmaxBackward(Stream stream, DataType type, const SoftmaxBackwardArgs& args) {
  const int64_t rows = args.heads * args.q;
  if (rows * args.batch == 0) return;
  const int64_t apart = args.dbias ? 1 : Min<int64_t>(args.batch, 65535);
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.k % kVector<T> == 0 && AllAligned(args.p, args.dp, args.dbias), [&](auto count) {
      const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(rows, kWarps)), static_cast<unsigned>(apart));
      Launch(stream, &SoftmaxBackwardKernel<T, count()>, grid, dim3(kWarps * kWarp), 0, args);
    });
  });
}

}  // namespace

void AddSoftmaxKernels(KernelTable& table) {
  table.softmax_forward = &SoftmaxForward;
  table.softmax_backward = &SoftmaxBackward;
}

}  // namespace allometry::trainer::kernels
