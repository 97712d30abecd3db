#include "worker/trainer/engine/batch_pump.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

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

}  // namespace
}  // namespace allometry::trainer
