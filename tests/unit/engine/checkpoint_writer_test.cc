#include "worker/trainer/checkpoint/checkpoint_writer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <new>
#include <utility>
#include <vector>

#include "tests/unit/engine/temporary_folder.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointWriterTest : public testing::Test {
 protected:
  CheckpointWriter Writer() {
    return {store_, at::kCPU, [this](int64_t step, const fs::path& folder) {
              EXPECT_TRUE(fs::exists(folder / kCheckpointJson)) << "told before it stands";
              told_.push_back(step);
              return common::Ok();
            }};
  }
  static Checkpoint At(int64_t step, const at::Tensor& w) { return {step, {{"w", w}}, {{"step", step}}}; }
  at::Tensor Loaded(int64_t step) {
    return store_.Load(folder_ / ("checkpoint/step-" + std::to_string(step)))->tensors.at("w");
  }

  TemporaryFolder folder_;
  CheckpointStore store_{folder_ / "checkpoint", "run", [](const std::string&) {}};
  std::vector<int64_t> told_;  // by the writer's thread; read after Finish
};

// Training that changes its tensors as soon as it may, and no earlier than it may.
TEST_F(CheckpointWriterTest, HoldsTheValuesOfItsStep) {
  const at::Tensor w = at::zeros({1 << 20});
  CheckpointWriter writer = Writer();
  for (int64_t step = 1; step <= 5; ++step) {
    writer.HoldTraining();
    w.add_(1);
    ASSERT_TRUE(writer.Start(At(step, w)));
  }
  writer.HoldTraining();
  w.fill_(-1);
  ASSERT_TRUE(writer.Finish());
  EXPECT_FALSE(writer.busy());
  EXPECT_THAT(told_, ElementsAre(1, 2, 3, 4, 5));
  for (const int64_t step : {4, 5}) EXPECT_TRUE(at::equal(Loaded(step), at::full({1 << 20}, step, at::kFloat))) << step;
}

// What a device has computed may turn out to be wrong only when it has been copied.
TEST_F(CheckpointWriterTest, WhatSpeaksAgainstItKeepsItFromStanding) {
  const auto placed = [this](int64_t step, const fs::path&) {
    told_.push_back(step);
    return common::Ok();
  };
  bool broken = false;
  CheckpointWriter writer(store_, at::kCPU, placed, [&broken] {
    if (broken) throw std::runtime_error("an exchange was aborted");
  });
  ASSERT_TRUE(writer.Start(At(1, at::ones({3}))));
  ASSERT_TRUE(writer.Finish());
  broken = true;
  ASSERT_TRUE(writer.Start(At(2, at::ones({3}))));
  writer.HoldTraining();
  EXPECT_THROW((void)writer.Finish(), std::runtime_error);
  EXPECT_THAT(told_, ElementsAre(1));
  EXPECT_FALSE(fs::exists(folder_ / "checkpoint/step-2"));
}

TEST_F(CheckpointWriterTest, TheDestructorWaits) {
  { ASSERT_TRUE(Writer().Start(At(7, at::ones({1 << 20})))); }
  EXPECT_THAT(told_, ElementsAre(7));
  EXPECT_TRUE(at::equal(Loaded(7), at::ones({1 << 20})));
}

TEST_F(CheckpointWriterTest, TensorsThatNobodyElseHoldsAreGoneWhenTheyAreRead) {
  std::vector<float> memory(1 << 16, 1.0F);
  std::atomic<bool> gone{false};
  at::Tensor gathered = at::from_blob(memory.data(), {1 << 16}, [&](void*) { gone = true; });
  CheckpointWriter writer = Writer();
  ASSERT_TRUE(writer.Start(At(1, std::exchange(gathered, at::Tensor()))));
  writer.HoldTraining();
  EXPECT_TRUE(gone);
  EXPECT_TRUE(writer.Finish());
}

// An error is told once, by whatever comes next; training is not held for ever, and the next checkpoint is a new try.
TEST_F(CheckpointWriterTest, AnErrorComesOutOfTheNextCall) {
  std::ofstream(folder_ / "checkpoint") << "a file where the folder should be";
  CheckpointWriter writer = Writer();
  ASSERT_TRUE(writer.Start(At(1, at::ones({4}))));
  writer.HoldTraining();
  const auto second = writer.Start(At(2, at::ones({4})));
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr("checkpoint"));
  EXPECT_TRUE(writer.Finish()) << "the second was not begun";
  fs::remove(folder_ / "checkpoint");
  ASSERT_TRUE(writer.Start(At(3, at::ones({4}))));
  EXPECT_TRUE(writer.Finish());
  EXPECT_THAT(told_, ElementsAre(3));
}

TEST_F(CheckpointWriterTest, WhatTheWritingThrowsComesOutOfFinish) {
  CheckpointWriter writer(store_, at::kCPU, [](int64_t, const fs::path&) -> common::Status { throw std::bad_alloc(); });
  ASSERT_TRUE(writer.Start(At(1, at::ones({4}))));
  writer.HoldTraining();
  EXPECT_THROW(static_cast<void>(writer.Finish()), std::bad_alloc);
  EXPECT_TRUE(writer.Finish());
}

}  // namespace
}  // namespace allometry::trainer
