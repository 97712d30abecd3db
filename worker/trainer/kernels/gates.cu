#include "worker/trainer/kernels/gates.h"
#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float Sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

struct Gate {
  float value, slope;
};

// As layers/kernels_simd.cc evaluates it; Gelu in its tanh form.
template <Activation kActivation>
__device__ __forceinline__ Gate Evaluate(float u) {
  if constexpr (kActivation == Activation::kSigmoid) {
    const float s = Sigmoid(u);
    return {s, s * (1 - s)};
  } else if constexpr (kActivation == Activation::kSilu) {
    const float s = Sigmoid(u);
    return {u * s, s + u * s * (1 - s)};
  } else if constexpr (kActivation == Activation::kGelu) {  // u/2 (1 + tanh z) = u sigmoid(2 z)
    constexpr float kC = 0.79788456080286535588f, kA = 0.044715f;
    const float s = Sigmoid(2 * kC * (u + kA * u * u * u));
    return {u * s, s + u * s * (1 - s) * 2 * kC * (1 + 3 * kA * u * u)};
  } else {
    return {u > 0 ? u : 0.0f, u > 0 ? 1.0f : 0.0f};
  }
}

// Where a thread's pack lies: in dense arrays and in those with a stride.
struct Spot {
  int64_t dense, strided;
  bool inside;
};
template <int kCount>
__device__ __forceinline__ Spot SpotOf(int64_t rows, int64_t columns, int64_t stride) {
  const int64_t dense = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount, row = dense / columns;
  return {dense, dense + row * (stride - columns), row < rows};
}

template <int kCount, typename T>
__device__ __forceinline__ void ApplyMask(const void* mask, int64_t at, float (&v)[kCount]) {
  if (!mask) return;
  float m[kCount];
  LoadPack(static_cast<const T*>(mask) + at, m);
#pragma unroll
  for (int k = 0; k < kCount; ++k) v[k] *= m[k];
}

template <typename T, int kCount, Activation kActivation>
__global__ void __launch_bounds__(kThreads) GateForwardKernel(GateForwardArgs args) {
  const Spot at = SpotOf<kCount>(args.rows, args.columns, args.stride);
  if (!at.inside) return;
  float u[kCount], v[kCount];
  LoadPack(static_cast<const T*>(args.u) + at.strided, u);
  LoadPack(static_cast<const T*>(args.v) + at.strided, v);
#pragma unroll
  for (int k = 0; k < kCount; ++k) v[k] *= Evaluate<kActivation>(u[k]).value;
  ApplyMask<kCount, T>(args.mask, at.dense, v);
  StorePack(static_cast<T*>(args.out) + at.dense, v);
}

template <typename T, int kCount, Activation kActivation>
__global__ void __launch_bounds__(kThreads) GateBackwardKernel(GateBackwardArgs args) {
  const Spot at = SpotOf<kCount>(args.rows, args.columns, args.stride);
  if (!at.inside) return;
  float u[kCount], v[kCount], g[kCount];
  LoadPack(static_cast<const T*>(args.u) + at.strided, u);
  LoadPack(static_cast<const T*>(args.v) + at.strided, v);
  LoadPack(static_cast<const T*>(args.dout) + at.dense, g);
  ApplyMask<kCount, T>(args.mask, at.dense, g);
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const Gate gate = Evaluate<kActivation>(u[k]);
    u[k] = g[k] * v[k] * gate.slope;
    v[k] = g[k] * gate.value;
  }
  StorePack(static_cast<T*>(args.du) + at.strided, u);
  StorePack(static_cast<T*>(args.dv) + at.strided, v);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) ReluForwardKernel(ReluForwardArgs args) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount;
  if (at >= args.n) return;
  float v[kCount];
  LoadPack(static_cast<const T*>(args.x) + at, v);
#pragma unroll
  for (int k = 0; k < kCount; ++k) v[k] = v[k] > 0 ? v[k] : (v[k] == v[k] ? 0.0f : v[k]);  // NaN stays
  ApplyMask<kCount, T>(args.mask, at, v);
  StorePack(static_cast<T*>(args.y) + at, v);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) ReluBackwardKernel(ReluBackwardArgs args) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount;
  if (at >= args.n) return;
  float g[kCount], y[kCount];
  LoadPack(static_cast<const T*>(args.dy) + at, g);
  LoadPack(static_cast<const T*>(args.y) + at, y);
  ApplyMask<kCount, T>(args.mask, at, g);
#pragma unroll
  for (int k = 0; k < kCount; ++k)
    if (y[k] <= 0) g[k] = 0;
  StorePack(static_cast<T*>(args.dx) + at, g);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) GruResetForwardKernel(GruResetForwardArgs args) {
  const Spot at = SpotOf<kCount>(args.rows, args.d, args.stride);
  if (!at.inside) return;
  float x[kCount], r[kCount];
  LoadPack(static_cast<const T*>(args.x) + at.dense, x);
  LoadPack(static_cast<const T*>(args.reset) + at.strided, r);
#pragma unroll
  for (int k = 0; k < kCount; ++k) x[k] *= Sigmoid(r[k]);
  StorePack(static_cast<T*>(args.y) + at.dense, x);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) GruResetBackwardKernel(GruResetBackwardArgs args) {
  const Spot at = SpotOf<kCount>(args.rows, args.d, args.stride);
  if (!at.inside) return;
  float x[kCount], r[kCount], g[kCount], dx[kCount] = {};
  LoadPack(static_cast<const T*>(args.x) + at.dense, x);
  LoadPack(static_cast<const T*>(args.reset) + at.strided, r);
  LoadPack(static_cast<const T*>(args.dy) + at.dense, g);
  if (args.dx_before) LoadPack(static_cast<const T*>(args.dx_before) + at.dense, dx);
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const float s = Sigmoid(r[k]);
    dx[k] += g[k] * s;
    r[k] = g[k] * x[k] * s * (1 - s);
  }
  StorePack(static_cast<T*>(args.dx) + at.dense, dx);
  StorePack(static_cast<T*>(args.dreset) + at.strided, r);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) GruMixForwardKernel(GruMixForwardArgs args) {
  const Spot at = SpotOf<kCount>(args.rows, args.d, args.stride);
  if (!at.inside) return;
  float x[kCount], u[kCount], c[kCount];
  LoadPack(static_cast<const T*>(args.x) + at.dense, x);
  LoadPack(static_cast<const T*>(args.update) + at.strided, u);
  LoadPack(static_cast<const T*>(args.candidate) + at.dense, c);
#pragma unroll
  for (int k = 0; k < kCount; ++k) x[k] += Sigmoid(u[k]) * (tanhf(c[k]) - x[k]);
  StorePack(static_cast<T*>(args.y) + at.dense, x);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) GruMixBackwardKernel(GruMixBackwardArgs args) {
  const Spot at = SpotOf<kCount>(args.rows, args.d, args.stride);
  if (!at.inside) return;
  float x[kCount], u[kCount], c[kCount], g[kCount];
  LoadPack(static_cast<const T*>(args.x) + at.dense, x);
  LoadPack(static_cast<const T*>(args.update) + at.strided, u);
  LoadPack(static_cast<const T*>(args.candidate) + at.dense, c);
  LoadPack(static_cast<const T*>(args.dy) + at.dense, g);
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const float s = Sigmoid(u[k]), t = tanhf(c[k]);
    u[k] = g[k] * (t - x[k]) * s * (1 - s);
    c[k] = g[k] * s * (1 - t * t);
    x[k] = g[k] * (1 - s);
  }
  StorePack(static_cast<T*>(args.dx) + at.dense, x);
  StorePack(static_cast<T*>(args.dupdate) + at.strided, u);
  StorePack(static_cast<T*>(args.dcandidate) + at.dense, c);
}

template <typename F>
void WithActivation(Activation activation, F f) {
  switch (activation) {
    case Activation::kSigmoid:
      return f(std::integral_constant<Activation, Activation::kSigmoid>{});
    case Activation::kGelu:
      return f(std::integral_constant<Activation, Activation::kGelu>{});
    case Activation::kSilu:
      return f(std::integral_constant<Activation, Activation::kSilu>{});
    case Activation::kRelu:
      return f(std::integral_constant<Activation, Activation::kRelu>{});
  }
}

dim3 GridFor(int64_t values, int count) {
  return dim3(static_cast<unsigned>(CeilDiv<int64_t>(values, int64_t{kThreads} * count)));
}

// f(T, count) for rows of `columns` that start `stride` apart.
template <typename F, typename... P>
void WithRows(DataType type, int64_t rows, int64_t columns, int64_t stride, F f, const P*... pointers) {
  if (rows == 0 || columns == 0) return;
  WithType(type, [&]<typename T>(T value) {
    WithPack<T>(columns % kVector<T> == 0 && stride % kVector<T> == 0 && AllAligned(pointers...),
                [&](auto count) { f(value, count, GridFor(rows * columns, count())); });
  });
}

void GateForward(Stream stream, DataType type, const GateForwardArgs& args) {
  WithRows(
      type, args.rows, args.columns, args.stride,
      [&]<typename T>(T, auto count, dim3 grid) {
        WithActivation(args.activation, [&](auto act) {
          Launch(stream, &GateForwardKernel<T, count(), act()>, grid, dim3(kThreads), 0, args);
        });
      },
      args.u, args.v, args.mask, args.out);
}

void GateBackward(Stream stream, DataType type, const GateBackwardArgs& args) {
  WithRows(
      type, args.rows, args.columns, args.stride,
      [&]<typename T>(T, auto count, dim3 grid) {
        WithActivation(args.activation, [&](auto act) {
          Launch(stream, &GateBackwardKernel<T, count(), act()>, grid, dim3(kThreads), 0, args);
        });
      },
      args.u, args.v, args.mask, args.dout, args.du, args.dv);
}

void ReluForward(Stream stream, DataType type, const ReluForwardArgs& args) {
  WithRows(
      type, 1, args.n, args.n,
      [&]<typename T>(T, auto count, dim3 grid) {
        Launch(stream, &ReluForwardKernel<T, count()>, grid, dim3(kThreads), 0, args);
      },
      args.x, args.mask, args.y);
}

void ReluBackward(Stream stream, DataType type, const ReluBackwardArgs& args) {
  WithRows(
      type, 1, args.n, args.n,
      [&]<typename T>(T, auto count, dim3 grid) {
        Launch(stream, &ReluBackwardKernel<T, count()>, grid, dim3(kThreads), 0, args);
      },
      args.dy, args.y, args.mask, args.dx);
}

void GruResetForward(Stream stream, DataType type, const GruResetForwardArgs& args) {
  WithRows(
      type, args.rows, args.d, args.stride,
      [&]<typename T>(T, auto count, dim3 grid) {
        Launch(stream, &GruResetForwardKernel<T, count()>, grid, dim3(kThreads), 0, args);
      },
      args.x, args.reset, args.y);
}

void GruResetBackward(Stream stream, DataType type, const GruResetBackwardArgs& args) {
  WithRows(
      type, args.rows, args.d, args.stride,
      [&]<typename T>(T, auto count, dim3 grid) {
        Launch(stream, &GruResetBackwardKernel<T, count()>, grid, dim3(kThreads), 0, args);
      },
      args.x, args.reset, args.dy, args.dx_before, args.dx, args.dreset);
}

void GruMixForward(Stream stream, DataType type, const GruMixForwardArgs& args) {
  WithRows(
      type, args.rows, args.d, args.stride,
      [&]<typename T>(T, auto count, dim3 grid) {
        Launch(stream, &GruMixForwardKernel<T, count()>, grid, dim3(kThreads), 0, args);
      },
      args.x, args.update, args.candidate, args.y);
}

void GruMixBackward(Stream stream, DataType type, const GruMixBackwardArgs& args) {
  WithRows(
      type, args.rows, args.d, args.stride,
      [&]<typename T>(T, auto count, dim3 grid) {
        Launch(stream, &GruMixBackwardKernel<T, count()>, grid, dim3(kThreads), 0, args);
      },
      args.x, args.update, args.candidate, args.dy, args.dx, args.dupdate, args.dcandidate);
}

}  // namespace

void AddGateKernels(KernelTable& table) {
  table.gate_forward = &GateForward;
  table.gate_backward = &GateBackward;
  table.relu_forward = &ReluForward;
  table.relu_backward = &ReluBackward;
  table.gru_reset_forward = &GruResetForward;
  table.gru_reset_backward = &GruResetBackward;
  table.gru_mix_forward = &GruMixForward;
  table.gru_mix_backward = &GruMixBackward;
}

}  // namespace allometry::trainer::kernels
