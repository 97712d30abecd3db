#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "analysis/benchmarks.h"
#include "worker/trainer/tasks/task.h"

namespace allometry {
namespace {

// What the averages are made of and what the trainer's tasks measure are two places of one fact, since trainer and
// analysis share no code.
TEST(BenchmarkNames, AveragesAndTasksAgree) {
  std::map<std::string, std::set<std::string>> averaged, measured;
  for (const auto tasks : {analysis::GlueTasks(), analysis::SuperGlueTasks(), analysis::SquadTasks()})
    for (const analysis::BenchmarkTask& task : tasks)
      averaged[std::string(task.name)] = {task.metrics.begin(), task.metrics.end()};
  for (const trainer::Task* task : trainer::Tasks()) {
    if (task->benchmark() == "wordnet") continue;
    for (std::string_view split : task->valid_splits())
      for (std::string_view metric : task->metrics())
        measured[std::string(task->name())].insert(
            (task->valid_splits().size() > 1 ? std::string(split) + "_" : std::string()) + std::string(metric));
  }
  EXPECT_EQ(averaged, measured);
}

}  // namespace
}  // namespace allometry
