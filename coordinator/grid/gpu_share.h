#pragma once

#include <cstdint>

#include "arch/architecture.h"

// How many runs of a small model may share a GPU. A model of speed, not a measurement: a step's kernels run for
// max(FLOPs / peak, bytes / bandwidth), and between them the host needs a fixed time for each launch. Where launches
// take longer than kernels, the device idles, and other runs can have that time. It errs towards fewer: bytes are those
// of arch's estimate, which has attention write its probabilities.
namespace allometry::coordinator {

inline constexpr int64_t kMostSlotsPerGpu = 16;
inline constexpr int64_t kMostRowsOfGpu = 128;  // sequences that a trainer takes at once there, at most

// What the plan is made for, since it is made before there is a worker: an H100 with 80 GB, at what dense bf16 products
// and streaming kernels keep up there. A device with less memory is shared by fewer when runs are given out.
struct ReferenceGpu {
  double flops_per_second = 400e12;
  double bytes_per_second = 2.5e12;
  double seconds_a_launch = 5e-6;  // eagerly, from the host
  double memory_bytes = 80e9;
  // Of a run's part of the memory the predicted bytes may fill half: CUDA's context, about 0.5 GB a process, and the
  // allocator's reserves have the rest.
  double usable_share = 0.5;
};

// One training step of a run on one GPU.
struct GpuStep {
  double flops = 0;
  double bytes = 0;  // that its kernels read and write
  double launches = 0;
  double memory_bytes = 0;  // predicted, without the host's process
};

// `memory`: at a micro-batch of `rows` sequences, in the precision that GPUs use.
GpuStep StepOnGpu(const arch::Shape& shape, int64_t forward_flops, int64_t parameters,
                  const arch::MemoryEstimate& memory, int64_t batch_sequences, int64_t rows);

// Share of a step's time for which the device computes, in (0, 1].
double BusyShare(const GpuStep& step, const ReferenceGpu& gpu = {});

// 1, 2, 4, 8 or 16: the most for which neither the memory nor the device's time is given out twice.
int64_t SlotsPerGpu(const GpuStep& step, const ReferenceGpu& gpu = {});

}  // namespace allometry::coordinator
