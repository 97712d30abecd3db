#include "coordinator/grid/gpu_share.h"

#include <algorithm>

namespace allometry::coordinator {
namespace {

// Kernels of a forward and a backward pass through a layer of the backbone: norm, projections, attention, feed-forward,
// residuals and dropout, of which the backward pass has two or three each. A decoder's layer has cross-attention too.
constexpr double kLaunchesAnEncoderLayer = 60, kLaunchesADecoderLayer = 90;
// Embedding, head and loss of each pass; clipping and the optimiser of a step.
constexpr double kLaunchesAPass = 40, kLaunchesAStep = 60;
// Activations are written forward and read backward, where gradients as large are written and read.
constexpr double kTouchesOfActivations = 4;
// Weights forward and backward, gradients, fp32 masters and AdamW's two moments, read and written.
constexpr double kBytesAParameter = 36;

}  // namespace

GpuStep StepOnGpu(const arch::Shape& shape, int64_t forward_flops, int64_t parameters,
                  const arch::MemoryEstimate& memory, int64_t batch_sequences, int64_t rows) {
  const auto batch = static_cast<double>(batch_sequences);
  const double passes = batch / static_cast<double>(std::max<int64_t>(1, rows));
  GpuStep step;
  step.flops = 3 * static_cast<double>(forward_flops) * batch;
  step.bytes = kTouchesOfActivations * static_cast<double>(memory.activations_bytes) * passes +
               kBytesAParameter * static_cast<double>(parameters);
  step.launches = passes * (kLaunchesAnEncoderLayer * static_cast<double>(shape.encoder_layers) +
                            kLaunchesADecoderLayer * static_cast<double>(shape.decoder_layers) + kLaunchesAPass) +
                  kLaunchesAStep;
  step.memory_bytes = static_cast<double>(memory.total() - memory.process_bytes);
  return step;
}

double BusyShare(const GpuStep& step, const ReferenceGpu& gpu) {
  const double kernels = std::max(step.flops / gpu.flops_per_second, step.bytes / gpu.bytes_per_second);
  return kernels / std::max(kernels, step.launches * gpu.seconds_a_launch);
}

int64_t SlotsPerGpu(const GpuStep& step, const ReferenceGpu& gpu) {
  int64_t slots = 1;
  const auto fits = [&](int64_t more) {
    const auto share = static_cast<double>(more);
    return share * BusyShare(step, gpu) <= 1 && share * step.memory_bytes <= gpu.usable_share * gpu.memory_bytes;
  };
  while (slots < kMostSlotsPerGpu && fits(2 * slots)) slots *= 2;
  return slots;
}

}  // namespace allometry::coordinator
