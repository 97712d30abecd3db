#include "worker/trainer/engine/memory_plan.h"

#include <gtest/gtest.h>

namespace allometry::trainer {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

TrainingConfig Base(const std::string& optimizer = "adamw") {
  TrainingConfig config;
  config.model = {"transformer", {12, 12, 768, 3072, 12, 64, 32'128}, common::Json::object()};
  config.optimization.optimizer.name = optimizer;
  config.lengths = {512, 114};
  config.batch_sequences = 128;
  return config;
}

MemoryPlan PlanWith(int64_t bytes, bool on_gpu = false, int64_t ranks = 1) {
  return PlanMemory(Base(), "bf16", {.rows = 128, .most_rows = 128, .bytes = bytes, .ranks = ranks, .on_gpu = on_gpu});
}

TEST(MemoryPlanTest, TakesAllRowsWhereMemoryIsNoConcern) {
  EXPECT_EQ(PlanWith(10'000 * kGiB).micro_batch, 128);
  EXPECT_FALSE(PlanWith(10'000 * kGiB).recompute);
}

TEST(MemoryPlanTest, LessMemoryIsNeverMoreRows) {
  int64_t before = 128;
  bool recomputed = false;
  for (int64_t bytes = 512 * kGiB; bytes >= kGiB; bytes = bytes * 4 / 5) {
    const MemoryPlan plan = PlanWith(bytes);
    EXPECT_GE(plan.micro_batch, 1);
    EXPECT_GE(plan.recompute, recomputed) << bytes;
    if (plan.recompute == recomputed) {
      EXPECT_LE(plan.micro_batch, before) << bytes;
    }
    before = plan.micro_batch;
    recomputed = plan.recompute;
  }
  EXPECT_TRUE(recomputed);
  EXPECT_EQ(before, 1);
}

// The plan's own estimate holds, and twice the rows would not fit.
TEST(MemoryPlanTest, TheNextLargerMicroBatchWouldNotFit) {
  const TrainingConfig config = Base();
  const arch::Architecture& architecture = **arch::FindArchitecture("transformer");
  const auto total = [&](int64_t micro_batch) {
    const arch::MemoryEstimate e = architecture.EstimateMemory(config.model.shape, config.model.options,
                                                               {config.lengths, micro_batch, "bf16", "adamw"});
    return e.total() + 2 * e.gradients_bytes;  // sums of micro-batches in float32
  };
  const int64_t limit = total(40) * 10 / 9;
  const MemoryPlan plan = PlanWith(limit);
  EXPECT_EQ(plan.micro_batch, 32);
  EXPECT_LE(total(plan.micro_batch), limit / 10 * 9 + 10);
  EXPECT_GT(total(2 * plan.micro_batch), limit / 10 * 9);
}

TEST(MemoryPlanTest, AGpuIsFilledByHalfAndSharedStatesLeaveRoom) {
  const int64_t bytes = 48 * kGiB;
  EXPECT_LT(PlanWith(bytes, /*on_gpu=*/true).micro_batch, PlanWith(bytes).micro_batch);
  EXPECT_GE(PlanWith(bytes, false, 8).micro_batch, PlanWith(bytes).micro_batch);
}

// XXL on a GPU of 141 GB: ranks that take all of their rows at once hold a part of the gradients only.
TEST(MemoryPlanTest, AVeryLargeModelFitsAmongRanksThatTakeTheirRowsAtOnce) {
  TrainingConfig config = Base("adafactor");
  config.model.shape = *arch::FindSize("xxl");
  MemoryLimits limits{.rows = 8, .most_rows = 8, .bytes = 141'000'000'000, .on_gpu = true};
  EXPECT_TRUE(NeedsSharding(config, "bf16", limits));
  limits.ranks = 16;
  const MemoryPlan plan = PlanMemory(config, "bf16", limits);
  EXPECT_EQ(plan.micro_batch, 8);
  EXPECT_TRUE(plan.recompute);
  EXPECT_TRUE(
      FitsAtAll(config, "bf16", {.rows = 1, .most_rows = 1, .bytes = limits.bytes, .ranks = 16, .on_gpu = true}));
}

TEST(MemoryPlanTest, AFewRowsAreTakenWhole) {
  const MemoryPlan plan = PlanMemory(Base(), "fp32", {.rows = 3, .most_rows = 32, .bytes = 500 * kGiB});
  EXPECT_EQ(plan.micro_batch, 3);
  EXPECT_FALSE(plan.recompute);
}

TEST(MemoryPlanTest, ActivationCheckpointingIsAskedForOrForbidden) {
  MemoryLimits limits{.rows = 128, .most_rows = 128, .bytes = 500 * kGiB, .recompute = true};
  EXPECT_TRUE(PlanMemory(Base(), "fp32", limits).recompute);
  limits.recompute = false;
  limits.bytes = kGiB;
  const MemoryPlan plan = PlanMemory(Base(), "fp32", limits);
  EXPECT_EQ(plan.micro_batch, 1);
  EXPECT_FALSE(plan.recompute);
}

// After an out of memory the coordinator gives the micro-batch: what needed activation checkpointing needs it still.
TEST(MemoryPlanTest, AGivenMicroBatchIsTakenAndCheckpointedWhereItMust) {
  MemoryLimits limits{.rows = 100, .most_rows = 100, .bytes = 10'000 * kGiB};
  EXPECT_EQ(PlanGiven(Base(), "fp32", limits, 64).micro_batch, 64);
  EXPECT_EQ(PlanGiven(Base(), "fp32", limits, 128).micro_batch, 100);
  EXPECT_FALSE(PlanGiven(Base(), "fp32", limits, 64).recompute);
  bool seen = false;
  for (int64_t bytes = 64 * kGiB; bytes >= kGiB; bytes -= kGiB / 4) {
    limits.bytes = bytes;
    const MemoryPlan own = PlanMemory(Base(), "fp32", limits);
    if (!own.recompute || own.micro_batch == 1) continue;
    seen = true;
    const MemoryPlan next = PlanGiven(Base(), "fp32", limits, own.micro_batch);
    EXPECT_EQ(next.micro_batch, own.micro_batch);
    EXPECT_TRUE(next.recompute) << bytes;
  }
  EXPECT_TRUE(seen);
  limits.bytes = kGiB;
  limits.recompute = false;
  EXPECT_FALSE(PlanGiven(Base(), "fp32", limits, 64).recompute);
}

TEST(MemoryPlanTest, StatesAreShardedWhenOneRankCannotHoldThem) {
  EXPECT_FALSE(NeedsSharding(Base(), "fp32", {.rows = 8, .most_rows = 8, .bytes = 64 * kGiB, .ranks = 1}));
  EXPECT_TRUE(NeedsSharding(Base(), "fp32", {.rows = 8, .most_rows = 8, .bytes = 2 * kGiB, .ranks = 1}));
}

}  // namespace
}  // namespace allometry::trainer
