#include "coordinator/grid/known_tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "worker/trainer/tasks/task.h"

namespace allometry {
namespace {

using coordinator::FindKnown;
using coordinator::KnownData;
using coordinator::KnownTasks;

TEST(KnownTasks, AreTheTrainersTasks) {
  std::vector<std::string> of_trainer;
  for (const trainer::Task* task : trainer::Tasks()) of_trainer.emplace_back(task->name());
  EXPECT_THAT(coordinator::NamesOf(KnownTasks()), ::testing::ElementsAreArray(of_trainer));
}

TEST(KnownTasks, BelongToTheSameBenchmarksAndAverages) {
  for (const trainer::Task* task : trainer::Tasks()) {
    const KnownData& known = *FindKnown(KnownTasks(), task->name());
    EXPECT_EQ(known.benchmark, task->benchmark()) << task->name();
    EXPECT_EQ(known.in_average, task->in_average()) << task->name();
  }
}

// Of a package all files go to each of its tasks.
TEST(KnownTasks, BringTheFilesThatTheReaderNeeds) {
  for (const trainer::Task* task : trainer::Tasks())
    for (const auto& layout : FindKnown(KnownTasks(), task->name())->layouts) {
      for (std::string_view needed : task->files())
        EXPECT_TRUE(std::ranges::count(layout, needed)) << task->name() << " " << needed;
      for (std::string_view file : layout)
        EXPECT_TRUE(task->benchmark() == "wordnet" ||
                    std::ranges::count(task->files(), file) + std::ranges::count(task->optional_files(), file))
            << task->name() << " " << file;
    }
}

}  // namespace
}  // namespace allometry
