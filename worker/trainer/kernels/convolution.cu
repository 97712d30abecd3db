#include "worker/trainer/kernels/convolution.h"
#include "worker/trainer/kernels/kernel_table.h"
#include "worker/trainer/kernels/rows.h"

namespace allometry::trainer::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kOutputs = 4;  // neighbouring positions of a thread: each input is loaded once for all of them
constexpr int kTaps = 4;     // neighbouring taps of a thread, for the kernel's gradient

// Which channels and which position a thread takes; threads of neighbouring channels are neighbours.
struct Spot {
  int64_t channel, time, batch;
  bool inside;
};
template <int kCount>
__device__ __forceinline__ Spot SpotOf(int64_t batch, int64_t times, int64_t channels) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x, packs = channels / kCount;
  const int64_t rest = at / packs;
  return {at % packs * kCount, rest % times, rest / times, rest < batch * times};
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) ConvolveKernel(ConvolveArgs args) {
  const Spot spot = SpotOf<kCount>(args.batch, CeilDiv<int64_t>(args.length, kOutputs), args.channels);
  if (!spot.inside) return;
  const int width = static_cast<int>(args.width);
  const int64_t t = spot.time * kOutputs, row = spot.batch * args.length;
  const T* x = static_cast<const T*>(args.x) + spot.channel;
  float sums[kOutputs][kCount] = {};
  for (int s = 0; s < width + kOutputs - 1; ++s) {  // position t + first + s is tap s - i of output t + i
    const int64_t from = t + args.first + s;
    if (from < 0 || from >= args.length) continue;
    float v[kCount];
    LoadPack(x + (row + from) * args.channels, v);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      const int tap = s - i;
      if (tap < 0 || tap >= width) continue;
      float w[kCount];
      LoadPack(args.kernel + (args.reversed ? width - 1 - tap : tap) * args.channels + spot.channel, w);
#pragma unroll
      for (int k = 0; k < kCount; ++k) sums[i][k] += w[k] * v[k];
    }
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i)
    if (t + i < args.length) StorePack(static_cast<T*>(args.y) + (row + t + i) * args.channels + spot.channel, sums[i]);
}

// A thread adds up kTaps taps of its channels over one part of a sequence; the inputs move through its registers.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) ConvolveKernelGradientKernel(ConvolveKernelGradientArgs args) {
  const int64_t parts = CeilDiv<int64_t>(args.length, kConvolvePart), tap_groups = CeilDiv<int64_t>(args.width, kTaps);
  const Spot spot = SpotOf<kCount>(args.batch * parts, tap_groups, args.channels);
  if (!spot.inside) return;
  const int64_t tap = spot.time * kTaps, from = spot.batch % parts * kConvolvePart,
                to = Min(args.length, from + kConvolvePart);
  const T* x = static_cast<const T*>(args.x) + spot.batch / parts * args.length * args.channels + spot.channel;
  const T* dy = static_cast<const T*>(args.dy) + spot.batch / parts * args.length * args.channels + spot.channel;
  float sums[kTaps][kCount] = {}, window[kTaps][kCount] = {};
  const auto load = [&](int64_t t, float(&v)[kCount]) {
    if (t >= 0 && t < args.length) {
      LoadPack(x + t * args.channels, v);
    } else {
#pragma unroll
      for (int k = 0; k < kCount; ++k) v[k] = 0;
    }
  };
#pragma unroll
  for (int i = 0; i + 1 < kTaps; ++i) load(from + args.first + tap + i, window[i + 1]);
  for (int64_t t = from; t < to; ++t) {
    float g[kCount];
    LoadPack(dy + t * args.channels, g);
#pragma unroll
    for (int i = 0; i + 1 < kTaps; ++i)
#pragma unroll
      for (int k = 0; k < kCount; ++k) window[i][k] = window[i + 1][k];
    load(t + args.first + tap + kTaps - 1, window[kTaps - 1]);
#pragma unroll
    for (int i = 0; i < kTaps; ++i)
#pragma unroll
      for (int k = 0; k < kCount; ++k) sums[i][k] += g[k] * window[i][k];
  }
#pragma unroll
  for (int i = 0; i < kTaps; ++i)
    if (tap + i < args.width)
      StorePack(args.workspace + (spot.batch * args.width + tap + i) * args.channels + spot.channel, sums[i]);
}

// The logits of a thread's channels at one tap: one for each channel, or one for all of them.
template <typename T, int kCount, bool kOneEach>
__device__ __forceinline__ void LoadLogits(const T* logits, float (&v)[kCount]) {
  if constexpr (kOneEach) {
    LoadPack(logits, v);
  } else {
    const float one = Widen(*logits);
#pragma unroll
    for (int k = 0; k < kCount; ++k) v[k] = one;
  }
}

// The softmax and the sum in one read, by the online softmax of each channel.
template <typename T, int kCount, bool kOneEach>
__global__ void __launch_bounds__(kThreads) DynamicConvolveKernel(DynamicConvolveArgs args) {
  const Spot spot = SpotOf<kCount>(args.batch, args.length, args.channels);
  if (!spot.inside) return;
  const int64_t row = spot.batch * args.length + spot.time, kernel = spot.channel / (args.channels / args.kernels);
  const T* logits = static_cast<const T*>(args.logits) + row * args.width * args.kernels + kernel;
  const T* x = static_cast<const T*>(args.x) + spot.batch * args.length * args.channels + spot.channel;
  float largest[kCount], total[kCount] = {}, sum[kCount] = {};
#pragma unroll
  for (int k = 0; k < kCount; ++k) largest[k] = -INFINITY;
  for (int64_t j = 0; j < args.width; ++j) {
    float l[kCount], v[kCount] = {};
    LoadLogits<T, kCount, kOneEach>(logits + j * args.kernels, l);
    const int64_t from = spot.time + args.first + j;
    if (from >= 0 && from < args.length) LoadPack(x + from * args.channels, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const float top = fmaxf(largest[k], l[k]), before = __expf(largest[k] - top), now = __expf(l[k] - top);
      total[k] = total[k] * before + now;
      sum[k] = sum[k] * before + now * v[k];
      largest[k] = top;
    }
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) sum[k] /= total[k];
  StorePack(static_cast<T*>(args.y) + row * args.channels + spot.channel, sum);
}

// With r_j = p_j dy, dlogits_j = r_j (x[t + first + j] - y), summed over the kernel's channels, since the mean of dp
// under p is dy y. Also leaves the log of the softmax's denominator.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) DynamicLogitsKernel(DynamicConvolveBackwardArgs args) {
  const Spot spot = SpotOf<kCount>(args.batch, args.length, args.channels);  // as many channels as kernels
  if (!spot.inside) return;
  const int64_t row = spot.batch * args.length + spot.time, at = row * args.channels + spot.channel;
  const int64_t logits_at = row * args.width * args.kernels + spot.channel;
  const T* logits = static_cast<const T*>(args.logits) + logits_at;
  const T* x = static_cast<const T*>(args.x) + spot.batch * args.length * args.channels + spot.channel;
  float g[kCount], y[kCount], log_sum[kCount];
  LoadPack(static_cast<const T*>(args.dy) + at, g);
  LoadPack(static_cast<const T*>(args.y) + at, y);
  OnlineSum sums[kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) sums[k] = NothingSeen();
  for (int64_t j = 0; j < args.width; ++j) {
    float l[kCount];
    LoadPack(logits + j * args.kernels, l);
#pragma unroll
    for (int k = 0; k < kCount; ++k) Merge(sums[k], {l[k], 1.0f});
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) log_sum[k] = sums[k].largest + logf(sums[k].sum);
  StorePack(args.workspace + at, log_sum);
  for (int64_t j = 0; j < args.width; ++j) {
    float l[kCount], v[kCount] = {};
    LoadPack(logits + j * args.kernels, l);
    const int64_t from = spot.time + args.first + j;
    if (from >= 0 && from < args.length) LoadPack(x + from * args.channels, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) l[k] = g[k] * __expf(l[k] - log_sum[k]) * (v[k] - y[k]);
    StorePack(static_cast<T*>(args.dlogits) + logits_at + j * args.kernels, l);
  }
}

// The same where a kernel serves several channels: a warp for each position and kernel.
template <typename T>
__global__ void __launch_bounds__(kThreads) DynamicSharedLogitsKernel(DynamicConvolveBackwardArgs args) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;  // [batch, length, kernels]
  if (at >= args.batch * args.length * args.kernels) return;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t row = at / args.kernels, kernel = at % args.kernels, time = row % args.length;
  const int64_t each = args.channels / args.kernels, channel = kernel * each;
  const int64_t logits_at = row * args.width * args.kernels + kernel;
  const T* logits = static_cast<const T*>(args.logits) + logits_at;
  const T* x = static_cast<const T*>(args.x) + (row - time) * args.channels + channel;
  const T* y = static_cast<const T*>(args.y) + row * args.channels + channel;
  const T* dy = static_cast<const T*>(args.dy) + row * args.channels + channel;
  OnlineSum sum = NothingSeen();
  for (int64_t j = lane; j < args.width; j += kWarp) Merge(sum, {Widen(logits[j * args.kernels]), 1.0f});
  sum = WarpMerge(sum);
  const float log_sum = sum.largest + logf(sum.sum);
  if (lane == 0) args.workspace[at] = log_sum;
  float mean = 0;
  for (int64_t c = lane; c < each; c += kWarp) mean += Widen(dy[c]) * Widen(y[c]);
  mean = WarpSum(mean);
  for (int64_t j = 0; j < args.width; ++j) {
    const int64_t from = time + args.first + j;
    float dot = 0;
    if (from >= 0 && from < args.length)
      for (int64_t c = lane; c < each; c += kWarp) dot += Widen(dy[c]) * Widen(x[from * args.channels + c]);
    dot = WarpSum(dot);
    if (lane == 0)
      static_cast<T*>(args.dlogits)[logits_at + j * args.kernels] =
          Narrow<T>(__expf(Widen(logits[j * args.kernels]) - log_sum) * (dot - mean));
  }
}

// dx[s] = sum_j p[s - first - j][j] dy[s - first - j].
template <typename T, int kCount, bool kOneEach>
__global__ void __launch_bounds__(kThreads) DynamicInputKernel(DynamicConvolveBackwardArgs args) {
  const Spot spot = SpotOf<kCount>(args.batch, args.length, args.channels);
  if (!spot.inside) return;
  const int64_t kernel = spot.channel / (args.channels / args.kernels), sequence = spot.batch * args.length;
  float sum[kCount] = {};
  for (int64_t j = 0; j < args.width; ++j) {
    const int64_t t = spot.time - args.first - j;
    if (t < 0 || t >= args.length) continue;
    float l[kCount], log_sum[kCount], g[kCount];
    LoadLogits<T, kCount, kOneEach>(
        static_cast<const T*>(args.logits) + ((sequence + t) * args.width + j) * args.kernels + kernel, l);
    LoadLogits<float, kCount, kOneEach>(args.workspace + (sequence + t) * args.kernels + kernel, log_sum);
    LoadPack(static_cast<const T*>(args.dy) + (sequence + t) * args.channels + spot.channel, g);
#pragma unroll
    for (int k = 0; k < kCount; ++k) sum[k] += __expf(l[k] - log_sum[k]) * g[k];
  }
  StorePack(static_cast<T*>(args.dx) + (sequence + spot.time) * args.channels + spot.channel, sum);
}

dim3 GridFor(int64_t threads) { return dim3(static_cast<unsigned>(CeilDiv<int64_t>(threads, kThreads))); }

void Convolve(Stream stream, DataType type, const ConvolveArgs& args) {
  if (args.batch * args.length * args.channels == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.channels % kVector<T> == 0 && AllAligned(args.x, args.kernel, args.y), [&](auto count) {
      const dim3 grid = GridFor(args.batch * CeilDiv<int64_t>(args.length, kOutputs) * (args.channels / count()));
      Launch(stream, &ConvolveKernel<T, count()>, grid, dim3(kThreads), 0, args);
    });
  });
}

void ConvolveKernelGradient(Stream stream, DataType type, const ConvolveKernelGradientArgs& args) {
  const int64_t parts = ConvolveParts(args.batch, args.length);
  if (args.width * args.channels == 0) return;
  WithType(type, [&]<typename T>(T) {
    WithPack<T>(args.channels % kVector<T> == 0 && AllAligned(args.x, args.dy, args.workspace), [&](auto count) {
      const dim3 grid = GridFor(parts * CeilDiv<int64_t>(args.width, kTaps) * (args.channels / count()));
      if (parts) Launch(stream, &ConvolveKernelGradientKernel<T, count()>, grid, dim3(kThreads), 0, args);
    });
  });
  SumParts(stream, args.workspace, args.dkernel, static_cast<int>(parts), args.width * args.channels);
}

// f(T, count, whether each channel has a kernel of its own) for arguments of either pass.
template <typename Args, typename F, typename... P>
void WithChannels(DataType type, const Args& args, F f, const P*... pointers) {
  if (args.batch * args.length * args.channels == 0) return;
  WithType(type, [&]<typename T>(T value) {
    const bool one_each = args.channels == args.kernels;
    const int64_t together = one_each ? args.channels : args.channels / args.kernels;
    WithPack<T>(together % kVector<T> == 0 && AllAligned(pointers...), [&](auto count) {
      if (one_each)
        f(value, count, std::true_type());
      else
        f(value, count, std::false_type());
    });
  });
}

void DynamicConvolve(Stream stream, DataType type, const DynamicConvolveArgs& args) {
  WithChannels(
      type, args,
      [&]<typename T>(T, auto count, auto one_each) {
        const dim3 grid = GridFor(args.batch * args.length * (args.channels / count()));
        Launch(stream, &DynamicConvolveKernel<T, count(), one_each()>, grid, dim3(kThreads), 0, args);
      },
      args.x, args.logits, args.y);
}

void DynamicConvolveBackward(Stream stream, DataType type, const DynamicConvolveBackwardArgs& args) {
  WithChannels(
      type, args,
      [&]<typename T>(T, auto count, auto one_each) {
        const dim3 grid = GridFor(args.batch * args.length * (args.channels / count()));
        if constexpr (one_each())
          Launch(stream, &DynamicLogitsKernel<T, count()>, grid, dim3(kThreads), 0, args);
        else
          Launch(stream, &DynamicSharedLogitsKernel<T>, GridFor(args.batch * args.length * args.kernels * kWarp),
                 dim3(kThreads), 0, args);
        Launch(stream, &DynamicInputKernel<T, count(), one_each()>, grid, dim3(kThreads), 0, args);
      },
      args.x, args.logits, args.y, args.dy, args.dx, args.dlogits, args.workspace);
}

}  // namespace

void AddConvolutionKernels(KernelTable& table) {
  table.convolve = &Convolve;
  table.convolve_kernel_gradient = &ConvolveKernelGradient;
  table.dynamic_convolve = &DynamicConvolve;
  table.dynamic_convolve_backward = &DynamicConvolveBackward;
}

}  // namespace allometry::trainer::kernels
