#include <array>
#include <string>

#include "common/ids.h"
#include "worker/trainer/tasks/task.h"

namespace allometry::trainer {

std::span<const Task* const> Tasks() {
  static const std::array<const Task*, 2> kTasks = {&WordnetPosTask(), &WordnetWicTask()};
  return kTasks;
}

common::Result<const Task*> FindTask(std::string_view name) {
  std::vector<std::string> names;
  for (const Task* task : Tasks()) {
    if (task->name() == name) return task;
    names.emplace_back(task->name());
  }
  std::string known;
  for (const std::string& n : names) known += " " + n;
  const std::string nearest = common::NearestName(std::string(name), names);
  return common::NotFound("there is no task '" + std::string(name) + "'" +
                          (nearest.empty() ? "" : "; did you mean '" + nearest + "'?") + " Known:" + known);
}

}  // namespace allometry::trainer
