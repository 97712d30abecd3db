#include "coordinator/grid/gpu_share.h"

#include <gtest/gtest.h>

namespace allometry::coordinator {
namespace {

// A step whose kernels run for one second, and whose launches take so many.
GpuStep BusyFor(double seconds) {
  GpuStep step;
  step.flops = ReferenceGpu().flops_per_second;
  step.launches = seconds / ReferenceGpu().seconds_a_launch;
  return step;
}

TEST(GpuShare, IsAsManyAsTheLaunchesLeaveTimeFor) {
  EXPECT_EQ(SlotsPerGpu(BusyFor(0.5)), 1) << "bound by its kernels";
  EXPECT_DOUBLE_EQ(BusyShare(BusyFor(0.5)), 1);
  EXPECT_DOUBLE_EQ(BusyShare(BusyFor(5)), 0.2);
  EXPECT_EQ(SlotsPerGpu(BusyFor(1.9)), 1);
  EXPECT_EQ(SlotsPerGpu(BusyFor(2.1)), 2);
  EXPECT_EQ(SlotsPerGpu(BusyFor(5)), 4);
  EXPECT_EQ(SlotsPerGpu(BusyFor(1'000)), 16);
}

TEST(GpuShare, BytesKeepADeviceBusyToo) {
  GpuStep step = BusyFor(8.1);
  step.bytes = 4 * ReferenceGpu().bytes_per_second;
  EXPECT_EQ(SlotsPerGpu(step), 2);
}

TEST(GpuShare, TheMemoryIsNotGivenOutTwice) {
  GpuStep step = BusyFor(1'000);
  step.memory_bytes = 10e9;
  EXPECT_EQ(SlotsPerGpu(step), 4) << "of 80 GB, half is for predicted bytes";
  step.memory_bytes = 10.1e9;
  EXPECT_EQ(SlotsPerGpu(step), 2);
}

TEST(GpuShare, MicroBatchesCostLaunches) {
  arch::Shape shape;
  shape.encoder_layers = shape.decoder_layers = 4;
  const GpuStep once = StepOnGpu(shape, 1'000, 1'000, {}, 128, 128);
  const GpuStep twice = StepOnGpu(shape, 1'000, 1'000, {}, 256, 128);
  EXPECT_EQ(twice.flops, 2 * once.flops);
  EXPECT_GT(twice.launches, 1.8 * once.launches);
}

}  // namespace
}  // namespace allometry::coordinator
