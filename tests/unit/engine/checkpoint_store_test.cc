#include "worker/trainer/checkpoint/checkpoint_store.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "tests/unit/engine/temporary_folder.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

Checkpoint At(int64_t step) {
  return {step, {{"w", at::full({10}, static_cast<double>(step))}}, {{"sum", 0.1 * static_cast<double>(step)}}};
}

class CheckpointStoreTest : public testing::Test {
 protected:
  CheckpointStore Store(const std::string& run = "run-a") {
    return CheckpointStore(folder_ / "checkpoint", run, [this](const std::string& line) { log_.push_back(line); });
  }
  std::set<std::string> Names() {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / "checkpoint")) names.insert(entry.path().filename());
    return names;
  }
  // Overwrites one byte of a file.
  void Damage(const fs::path& path, int64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset, std::ios::end);
    file.put('\x5a');
  }

  TemporaryFolder folder_;
  std::vector<std::string> log_;
};

TEST_F(CheckpointStoreTest, NothingThereIsNoError) { EXPECT_FALSE(Store().LoadNewest("").has_value()); }

TEST_F(CheckpointStoreTest, GivesBackTheNewest) {
  auto store = Store();
  for (int64_t step : {9, 10, 100}) ASSERT_TRUE(store.Save(At(step)));
  auto loaded = Store().LoadNewest("");
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->step, 100);
  EXPECT_EQ(loaded->state.at("sum").get<double>(), 0.1 * 100.0);
  EXPECT_TRUE(at::equal(loaded->tensors.at("w"), At(100).tensors.at("w")));
  EXPECT_THAT(Names(), ElementsAre("step-10", "step-100"));
}

TEST_F(CheckpointStoreTest, SkipsADamagedOneAndSaysWhy) {
  ASSERT_TRUE(Store().Save(At(1)));
  ASSERT_TRUE(Store().Save(At(2)));
  Damage(folder_ / "checkpoint/step-2/tensors.safetensors", -3);
  auto loaded = Store().LoadNewest("");
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->step, 1);
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_THAT(log_[0], HasSubstr("step-2"));
}

TEST_F(CheckpointStoreTest, SkipsWhatIsTornInAnyFile) {
  for (const char* name : {"tensors.safetensors", "checkpoint.json"}) {
    for (bool remove : {true, false}) {
      ASSERT_TRUE(Store().Save(At(1)));
      ASSERT_TRUE(Store().Save(At(2)));
      const fs::path path = folder_ / "checkpoint/step-2" / name;
      if (remove)
        fs::remove(path);
      else
        fs::resize_file(path, fs::file_size(path) / 2);
      auto loaded = Store().LoadNewest("");
      ASSERT_TRUE(loaded) << name;
      EXPECT_EQ(loaded->step, 1) << name;
    }
  }
}

TEST_F(CheckpointStoreTest, ADamagedNewerOneIsReplacedAndNeverKeptForAValidOne) {
  for (int64_t step : {1, 2, 3}) ASSERT_TRUE(Store().Save(At(step)));
  Damage(folder_ / "checkpoint/step-3/tensors.safetensors", -3);
  auto store = Store();
  ASSERT_EQ(store.LoadNewest("")->step, 2);
  ASSERT_TRUE(store.Save(At(3)));
  EXPECT_EQ(Store().LoadNewest("")->step, 3);
  EXPECT_THAT(Names(), ElementsAre("step-2", "step-3"));
}

TEST_F(CheckpointStoreTest, AnotherRunsIsNotTaken) {
  ASSERT_TRUE(Store("run-a").Save(At(5)));
  EXPECT_FALSE(Store("run-b").LoadNewest("").has_value());
  EXPECT_THAT(log_.at(0), HasSubstr("another run"));
}

TEST_F(CheckpointStoreTest, TheNewerOfOwnAndGivenCounts) {
  auto other = CheckpointStore(folder_ / "other", "run-a", [](const std::string&) {});
  ASSERT_TRUE(Store().Save(At(5)));
  for (int64_t step : {4, 5, 6}) {
    auto given = At(step);
    given.state["from"] = "given";
    auto path = other.Save(given);
    ASSERT_TRUE(path);
    auto loaded = Store().LoadNewest(*path);
    ASSERT_TRUE(loaded);
    EXPECT_EQ(loaded->step, std::max<int64_t>(step, 5));
    EXPECT_EQ(loaded->state.contains("from"), step >= 5) << step;
  }
  EXPECT_EQ(Store().LoadNewest(folder_ / "absent")->step, 5);
}

TEST_F(CheckpointStoreTest, InterruptedWritesAreClearedAway) {
  ASSERT_TRUE(Store().Save(At(1)));
  fs::create_directories(folder_ / "checkpoint/.unfinished-step-2");
  std::ofstream(folder_ / "checkpoint/.unfinished-step-2/tensors.safetensors.tmp1") << "half";
  EXPECT_EQ(Store().LoadNewest("")->step, 1);
  EXPECT_THAT(Names(), ElementsAre("step-1"));
}

TEST_F(CheckpointStoreTest, AnUnwritableFolderIsAnError) {
  std::ofstream(folder_ / "checkpoint") << "a file where the folder should be";
  EXPECT_FALSE(Store().Save(At(1)).ok());
}

}  // namespace
}  // namespace allometry::trainer
