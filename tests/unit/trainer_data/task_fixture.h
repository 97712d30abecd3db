#pragma once

#include <gmock/gmock.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/trainer_data/data_fixture.h"
#include "worker/trainer/tasks/task.h"

namespace allometry::trainer {

// Task files written by hand.
class TaskFixture : public DataFixture {
 protected:
  using Content = std::vector<std::pair<std::string, std::string>>;  // name -> bytes

  TaskFiles Files(const Content& content) {
    TaskFiles files;
    for (const auto& [name, bytes] : content) files[name] = Write(name, bytes);
    return files;
  }

  // The task's examples; the test fails if there are none to be had.
  TaskExamples Read(const Task& task, const Content& content) {
    auto examples = task.Read(Files(content));
    if (examples) return *examples;
    ADD_FAILURE() << examples.error().message;
    return {};
  }

  // Checks that the task refuses the files with a message that has `part`.
  void ExpectRefused(const Task& task, const Content& content, const std::string& part,
                     common::ErrorCode code = common::ErrorCode::kDataLoss) {
    const auto examples = task.Read(Files(content));
    ASSERT_FALSE(examples.ok()) << "expected: " << part;
    EXPECT_EQ(examples.error().code, code) << examples.error().message;
    EXPECT_THAT(examples.error().message, ::testing::HasSubstr(part));
  }

  // "input -> answer [id]" of every example.
  static std::vector<std::string> Shown(const Task& task, const std::vector<TaskExample>& examples) {
    std::vector<std::string> shown;
    for (const TaskExample& e : examples)
      shown.push_back(e.input + " -> " + std::string(TargetText(task, e)) + " [" + e.id + "]");
    return shown;
  }
};

}  // namespace allometry::trainer
