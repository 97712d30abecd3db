#include "worker/trainer/engine/step_graphs.h"

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/kept_work.h"
#include "worker/trainer/kernels/kernel_table.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

DeviceBatch BatchOf(int64_t value, int64_t length) {
  return {at::full({2, length}, value, at::kLong), at::ones({2, 3}, at::kLong), {0, 2}, 2, 6};
}

class StepGraphsTest : public ::testing::Test {
 protected:
  // Adds up the batch.
  StepGraphs Make(StepGraphMaker make) {
    return {std::move(make),
            {[this](const DeviceBatch& batch) {
               calls_.push_back(batch.inputs_bs.size(1));
               return StepResult{batch.inputs_bs.sum(), {{"mean", {batch.inputs_bs.max(), at::ones({})}}}, {}};
             },
             [this] { ++begun_; },
             [this] {
               ++ended_;
               return at::ones({1});
             },
             [this] { ++abandoned_; }, [this](bool failed) { return failed || fails_elsewhere_; },
             [this] { ++launching_; }}};
  }
  static int64_t SumOf(StepGraphs& graphs, int64_t value, int64_t length) {
    const StepResult result = graphs.Take(BatchOf(value, length));
    EXPECT_EQ(result.means.at("mean").sum.item<int64_t>(), value);
    EXPECT_FALSE(result.gradient_norm.defined());
    return result.loss.item<int64_t>();
  }

  std::vector<int64_t> calls_;
  bool fails_elsewhere_ = false;
  int begun_ = 0, ended_ = 0, abandoned_ = 0, launching_ = 0;
};

TEST_F(StepGraphsTest, TheSecondStepOfAShapeIsRecorded) {
  StepGraphs graphs = Make([] { return std::make_unique<KeptWork>(); });
  EXPECT_EQ(SumOf(graphs, 1, 5), 10);
  EXPECT_EQ(begun_, 0);
  EXPECT_EQ(graphs.launches(), 0);
  for (int64_t value = 2; value < 5; ++value)
    EXPECT_EQ(SumOf(graphs, value, 5), 10 * value) << "reads this step's batch";
  EXPECT_EQ(graphs.launches(), 3);
  EXPECT_EQ(launching_, 3);
  EXPECT_EQ(begun_, 1);
  EXPECT_EQ(ended_, 1);
  EXPECT_EQ(abandoned_, 0);
}

TEST_F(StepGraphsTest, WhatAnotherRankCouldNotRecordIsNotLaunched) {
  StepGraphs graphs = Make([] { return std::make_unique<KeptWork>(); });
  fails_elsewhere_ = true;
  for (int64_t value = 1; value < 4; ++value) EXPECT_EQ(SumOf(graphs, value, 5), 10 * value);
  EXPECT_EQ(graphs.launches(), 0);
  EXPECT_EQ(launching_, 0);
  EXPECT_EQ(begun_, 1);
  EXPECT_EQ(ended_, 1);
  EXPECT_EQ(abandoned_, 1);
}

TEST_F(StepGraphsTest, EveryShapeHasItsOwn) {
  StepGraphs graphs = Make([] { return std::make_unique<KeptWork>(); });
  for (int64_t value = 1; value < 4; ++value)
    for (const int64_t length : {5, 7}) EXPECT_EQ(SumOf(graphs, value, length), 2 * length * value);
  EXPECT_EQ(graphs.launches(), 4);
  EXPECT_EQ(begun_, 2);
  graphs.Clear();
  SumOf(graphs, 1, 5);
  EXPECT_EQ(graphs.launches(), 4) << "as it is again";
}

TEST_F(StepGraphsTest, ResultsStayTheCallers) {
  StepGraphs graphs = Make([] { return std::make_unique<KeptWork>(); });
  graphs.Take(BatchOf(1, 5));
  const StepResult second = graphs.Take(BatchOf(2, 5)), third = graphs.Take(BatchOf(3, 5));
  EXPECT_EQ(second.loss.item<int64_t>(), 20);
  EXPECT_EQ(third.loss.item<int64_t>(), 30);
}

TEST_F(StepGraphsTest, MoreShapesThanItKeepsGoWithout) {
  StepGraphs graphs = Make([] { return std::make_unique<KeptWork>(); });
  ::testing::internal::CaptureStderr();
  for (int round = 0; round < 3; ++round)
    for (int64_t length = 1; length <= 12; ++length) EXPECT_EQ(SumOf(graphs, 1, length), 2 * length);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "batches have more than 8 shapes: steps of further ones are taken one operation at a time\n");
  EXPECT_EQ(graphs.launches(), 2 * 8);
}

// Without a graph the step is taken all the same, once.
TEST_F(StepGraphsTest, AShapeThatCannotBeRecordedGoesWithout) {
  struct Refuses : KeptWork {
    void Capture(const std::function<void()>&) override { TORCH_CHECK(false, "not while recording"); }
  };
  StepGraphs graphs = Make([] { return std::make_unique<Refuses>(); });
  ::testing::internal::CaptureStderr();
  for (int64_t value = 1; value < 4; ++value) EXPECT_EQ(SumOf(graphs, value, 5), 10 * value);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("not while recording"));
  EXPECT_THAT(calls_, ElementsAre(5, 5, 5));
  EXPECT_EQ(begun_, 1);
  EXPECT_EQ(ended_, 1) << "after an error too";
  EXPECT_EQ(abandoned_, 1);
  EXPECT_EQ(launching_, 0);
  EXPECT_EQ(graphs.launches(), 0);
}

TEST_F(StepGraphsTest, WithoutRoomForAGraphStepsGoOn) {
  StepGraphs graphs = Make([]() -> std::unique_ptr<StepGraph> { TORCH_CHECK(false, "no graph to be had"); });
  ::testing::internal::CaptureStderr();
  for (int64_t value = 1; value < 4; ++value) EXPECT_EQ(SumOf(graphs, value, 5), 10 * value);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("no graph to be had"));
  EXPECT_EQ(begun_, 1);
  EXPECT_EQ(ended_, 1);
  EXPECT_EQ(graphs.launches(), 0);
}

// The module takes what it needs from LibTorch's CUDA library: that all of it is there is seen without a GPU.
TEST(CudaGraphsTest, TheModuleFitsLibTorch) {
  if (::access(kernels::FindModule(kGraphLibraryFile).c_str(), F_OK) != 0) GTEST_SKIP() << "built without nvcc";
  if (!::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) GTEST_SKIP() << ::dlerror();
  std::string why_not;
  EXPECT_TRUE(CudaGraphs(&why_not)) << why_not;
}

}  // namespace
}  // namespace allometry::trainer
