#include "worker/trainer/engine/batch_pump.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

#include "worker/trainer/engine/device_batches.h"

namespace allometry::trainer {
namespace {

HostBatch BatchOf(int64_t step) { return {at::full({1, 1}, step, at::kLong), at::zeros({1, 1}, at::kLong), step}; }

TEST(BatchPumpTest, GivesEveryStepInOrder) {
  BatchPump pump(BatchOf, 5, 50, 3);
  for (int64_t step = 5; step <= 50; ++step) EXPECT_EQ(pump.Next().target_tokens, step);
}

TEST(BatchPumpTest, NeverRunsFurtherAheadThanItMay) {
  std::atomic<int64_t> made{0};
  BatchPump pump(
      [&](int64_t step) {
        made = step;
        return BatchOf(step);
      },
      1, 1000, 2);
  for (int64_t taken = 1; taken <= 20; ++taken) {
    pump.Next();
    EXPECT_LE(made.load(), taken + 3);  // two waiting, one in the maker's hand
  }
}

TEST(BatchPumpTest, AnExceptionComesOutAfterTheBatchesBeforeIt) {
  BatchPump pump(
      [](int64_t step) {
        if (step == 3) throw std::runtime_error("bad shard");
        return BatchOf(step);
      },
      1, 10, 8);
  EXPECT_EQ(pump.Next().target_tokens, 1);
  EXPECT_EQ(pump.Next().target_tokens, 2);
  EXPECT_THROW(pump.Next(), std::runtime_error);
}

TEST(BatchPumpTest, CanBeAbandoned) {
  for (int i = 0; i < 50; ++i) {
    BatchPump pump(BatchOf, 1, 1'000'000, 2);
    if (i % 2) pump.Next();
  }
}

TEST(DeviceBatchesTest, OnACpuRowsAreTheHostsOwnInOrder) {
  std::vector<at::Tensor> made;  // by the pump's thread, which is through when its last batch is there
  BatchPump pump(
      [&](int64_t step) {
        made.push_back(at::full({3, 2}, step, at::kLong));
        return HostBatch{made.back(), at::zeros({3, 1}, at::kLong), step};
      },
      1, 3, 3);
  DeviceBatches batches(pump, 3, at::kCPU, nullptr);
  std::vector<DeviceBatch> taken;
  for (int64_t step = 1; step <= 3; ++step) {
    taken.push_back(batches.Next());
    batches.Prefetch();
    EXPECT_EQ(taken.back().target_tokens, step);
    EXPECT_EQ(taken.back().rows, 3);
    EXPECT_EQ(taken.back().own.count, 3);
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(taken[i].inputs_bs.data_ptr(), made[i].data_ptr());
}

}  // namespace
}  // namespace allometry::trainer
