#include <array>
#include <string>

#include "common/ids.h"
#include "worker/trainer/tasks/task.h"

namespace allometry::trainer {
std::span<const std::string_view> Task::metrics() const {
  static constexpr std::array<std::string_view, 1> kMetrics = {"accuracy"};
  return kMetrics;
}

std::span<const std::string_view> Task::valid_splits() const {
  static constexpr std::array<std::string_view, 1> kSplits = {"valid"};
  return kSplits;
}

std::string_view TargetText(const Task& task, const TaskExample& example) {
  if (task.labels().empty()) return example.target;
  return task.labels()[static_cast<size_t>(example.label)];
}

std::span<const Task* const> Tasks() {
  static const std::array<const Task*, 20> kTasks = {
      &WordnetPosTask(),      &WordnetWicTask(),     &GlueColaTask(),     &GlueSst2Task(),      &GlueMrpcTask(),
      &GlueQqpTask(),         &GlueStsbTask(),       &GlueMnliTask(),     &GlueQnliTask(),      &GlueRteTask(),
      &GlueWnliTask(),        &SuperglueBoolqTask(), &SuperglueCbTask(),  &SuperglueCopaTask(), &SuperglueMultircTask(),
      &SuperglueRecordTask(), &SuperglueRteTask(),   &SuperglueWicTask(), &SuperglueWscTask(),  &SquadV11Task()};
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
