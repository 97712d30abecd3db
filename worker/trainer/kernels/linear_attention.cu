#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/linear_attention.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// As layers/linear_attention.cc.
constexpr float kStabiliser = 1e-6f, kLargestExponent = 60.0f, kNoKeys = 1e-12f;

// A row of projections that a warp turns into exponents.
template <typename T, int kCount>
struct Row {
  const T* projections;
  int m;

  __device__ __forceinline__ int First() const { return static_cast<int>(threadIdx.x % kWarp) * kCount; }

  __device__ __forceinline__ float Largest() const {
    float largest = -INFINITY;
    for (int i = First(); i < m; i += kWarp * kCount) {
      float v[kCount];
      LoadPack(projections + i, v);
#pragma unroll
      for (int k = 0; k < kCount; ++k) largest = fmaxf(largest, v[k]);
    }
    return WarpMax(largest);
  }
};

// |x|^2 / 2, by a warp.
template <typename T>
__device__ __forceinline__ float HalfSquare(const T* x, int e) {
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x % kWarp); i < e; i += kWarp) squares += Widen(x[i]) * Widen(x[i]);
  return WarpSum(squares) / 2;
}

template <typename T, int kCount, FeatureSide kSide>
__device__ __forceinline__ float ShiftOf(const Row<T, kCount>& row, const void* x, int64_t at, int e) {
  if constexpr (kSide == FeatureSide::kQuery) return row.Largest();
  if constexpr (kSide == FeatureSide::kKey) return HalfSquare(static_cast<const T*>(x) + at * e, e);
  return 0;
}

template <FeatureSide kSide>
__device__ __forceinline__ float Feature(float v) {
  if constexpr (kSide == FeatureSide::kRelu) return fmaxf(v, 0.0f);
  return expf(kSide == FeatureSide::kKey ? fminf(v, kLargestExponent) : v);
}
template <FeatureSide kSide>
__device__ __forceinline__ float FeatureSlope(float v) {
  if constexpr (kSide == FeatureSide::kRelu) return v > 0 ? 1.0f : 0.0f;
  return kSide == FeatureSide::kKey && v > kLargestExponent ? 0.0f : expf(v);
}

template <typename T, int kCount, FeatureSide kSide>
__global__ void __launch_bounds__(kThreads) FeaturesForwardKernel(FeaturesForwardArgs args) {
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (at >= args.rows) return;
  const Row<T, kCount> row{static_cast<const T*>(args.projections) + at * args.m, static_cast<int>(args.m)};
  const float shift = ShiftOf<T, kCount, kSide>(row, args.x, at, static_cast<int>(args.e));
  const float scale = rsqrtf(static_cast<float>(args.m));
  for (int i = row.First(); i < row.m; i += kWarp * kCount) {
    float v[kCount];
    LoadPack(row.projections + i, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) v[k] = scale * (Feature<kSide>(v[k] - shift) + kStabiliser);
    StorePack(static_cast<T*>(args.features) + at * args.m + i, v);
  }
}

template <typename T, int kCount, FeatureSide kSide>
__global__ void __launch_bounds__(kThreads) FeaturesBackwardKernel(FeaturesBackwardArgs args) {
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (at >= args.rows) return;
  const Row<T, kCount> row{static_cast<const T*>(args.projections) + at * args.m, static_cast<int>(args.m)};
  const T* dfeatures = static_cast<const T*>(args.dfeatures) + at * args.m;
  const int e = static_cast<int>(args.e);
  const float shift = ShiftOf<T, kCount, kSide>(row, args.x, at, e), scale = rsqrtf(static_cast<float>(args.m));
  const auto slopes = [&](int i, float(&v)[kCount], float(&d)[kCount]) {
    LoadPack(row.projections + i, v);
    LoadPack(dfeatures + i, d);
#pragma unroll
    for (int k = 0; k < kCount; ++k) d[k] *= scale * FeatureSlope<kSide>(v[k] - shift);
  };
  float total = 0, largest = 0;  // the sum of the gradients, and how many projections share the maximum
  if constexpr (kSide != FeatureSide::kRelu) {
    for (int i = row.First(); i < row.m; i += kWarp * kCount) {
      float v[kCount], d[kCount];
      slopes(i, v, d);
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        total += d[k];
        largest += v[k] == shift ? 1.0f : 0.0f;
      }
    }
    total = WarpSum(total);
    largest = WarpSum(largest);
  }
  for (int i = row.First(); i < row.m; i += kWarp * kCount) {
    float v[kCount], d[kCount];
    slopes(i, v, d);
    if constexpr (kSide == FeatureSide::kQuery)
#pragma unroll
      for (int k = 0; k < kCount; ++k)
        if (v[k] == shift) d[k] -= total / largest;  // the maximum's gradient, evenly to all that are it
    StorePack(static_cast<T*>(args.dprojections) + at * args.m + i, d);
  }
  if constexpr (kSide == FeatureSide::kKey)
    for (int i = static_cast<int>(threadIdx.x % kWarp); i < e; i += kWarp)
      static_cast<T*>(args.dx_square)[at * e + i] =
          Narrow<T>(-total * Widen(static_cast<const T*>(args.x)[at * e + i]));
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) CarriedSumsKernel(CarriedSumsArgs args) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x, packs = args.size / kCount;
  if (pack >= args.n * packs) return;
  const int64_t first = pack / packs * args.chunks * args.size + pack % packs * kCount;
  float sum[kCount] = {};
  for (int64_t g = 0; g < args.chunks; ++g) {
    const int64_t at = first + (args.backward ? args.chunks - 1 - g : g) * args.size;
    float v[kCount];
    LoadPack(static_cast<const T*>(args.x) + at, v);
    StorePack(static_cast<T*>(args.out) + at, sum);
#pragma unroll
    for (int k = 0; k < kCount; ++k) sum[k] += v[k];
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) QuotientForwardKernel(QuotientForwardArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= args.rows) return;
  const T* sums = static_cast<const T*>(args.sums) + row * (args.d + 1);
  const float share = 1 / fmaxf(Widen(sums[args.d]), kNoKeys);
  for (int64_t i = threadIdx.x % kWarp; i < args.d; i += kWarp)
    static_cast<T*>(args.y)[row * args.d + i] = Narrow<T>(Widen(sums[i]) * share);
}

// By the numerators dy / z, by the denominator -sum(dy y) / z, and 0 where it was cut off.
template <typename T>
__global__ void __launch_bounds__(kThreads) QuotientBackwardKernel(QuotientBackwardArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= args.rows) return;
  const T* sums = static_cast<const T*>(args.sums) + row * (args.d + 1);
  const T* dy = static_cast<const T*>(args.dy) + row * args.d;
  T* dsums = static_cast<T*>(args.dsums) + row * (args.d + 1);
  const float z = Widen(sums[args.d]), share = 1 / fmaxf(z, kNoKeys);
  float dot = 0;
  for (int64_t i = threadIdx.x % kWarp; i < args.d; i += kWarp) {
    const float g = Widen(dy[i]) * share;
    dot += g * (Widen(sums[i]) * share);
    dsums[i] = Narrow<T>(g);
  }
  dot = WarpSum(dot);
  if (threadIdx.x % kWarp == 0) dsums[args.d] = Narrow<T>(z >= kNoKeys ? -dot : 0.0f);
}

dim3 RowGrid(int64_t rows) { return dim3(static_cast<unsigned>(CeilDiv<int64_t>(rows, kWarps))); }

template <typename F>
void WithSide(FeatureSide side, F f) {
  switch (side) {
    case FeatureSide::kQuery:
      return f(std::integral_constant<FeatureSide, FeatureSide::kQuery>{});
    case FeatureSide::kKey:
      return f(std::integral_constant<FeatureSide, FeatureSide::kKey>{});
    case FeatureSide::kRelu:
      return f(std::integral_constant<FeatureSide, FeatureSide::kRelu>{});
  }
}

void FeaturesForward(Stream stream, DataType type, const FeaturesForwardArgs& args) {
  if (args.rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.m % kVector<T> == 0 && AllAligned(args.projections, args.features), [&](auto count) {
      WithSide(args.side, [&](auto side) {
        Launch(stream, &FeaturesForwardKernel<T, count(), side()>, RowGrid(args.rows), dim3(kThreads), 0, args);
      });
    });
  });
}

void FeaturesBackward(Stream stream, DataType type, const FeaturesBackwardArgs& args) {
  if (args.rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(
        args.m % kVector<T> == 0 && AllAligned(args.projections, args.dfeatures, args.dprojections), [&](auto count) {
          WithSide(args.side, [&](auto side) {
            Launch(stream, &FeaturesBackwardKernel<T, count(), side()>, RowGrid(args.rows), dim3(kThreads), 0, args);
          });
        });
  });
}

void CarriedSums(Stream stream, DataType type, const CarriedSumsArgs& args) {
  if (args.n * args.size == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.size % kVector<T> == 0 && AllAligned(args.x, args.out), [&](auto count) {
      const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(args.n * (args.size / count()), kThreads)));
      Launch(stream, &CarriedSumsKernel<T, count()>, grid, dim3(kThreads), 0, args);
    });
  });
}

void QuotientForward(Stream stream, DataType type, const QuotientForwardArgs& args) {
  if (args.rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    Launch(stream, &QuotientForwardKernel<T>, RowGrid(args.rows), dim3(kThreads), 0, args);
  });
}

void QuotientBackward(Stream stream, DataType type, const QuotientBackwardArgs& args) {
  if (args.rows == 0) return;
  WithType(type, [&]<typename T>(T) {
    Launch(stream, &QuotientBackwardKernel<T>, RowGrid(args.rows), dim3(kThreads), 0, args);
  });
}

}  // namespace

void AddLinearAttentionKernels(KernelTable& table) {
  table.features_forward = &FeaturesForward;
  table.features_backward = &FeaturesBackward;
  table.carried_sums = &CarriedSums;
  table.quotient_forward = &QuotientForward;
  table.quotient_backward = &QuotientBackward;
}

}  // namespace allometry::trainer::kernels
