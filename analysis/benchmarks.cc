#include "analysis/benchmarks.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace allometry::analysis {
namespace {

constexpr std::string_view kWnli = "glue_wnli";
constexpr std::array<std::string_view, 4> kAverageNames = {"glue", "superglue", "squad", "tasks"};

// The standard error of a task's value; known of all its metrics together, and of each.
std::optional<double> ErrorOf(const BenchmarkTask& task, const records::Score& score) {
  if (task.metrics.size() == score.metrics.size()) return score.standard_error;
  if (task.metrics.size() > 1) return std::nullopt;
  const auto found = score.standard_errors.find(std::string(task.metrics.front()));
  return found == score.standard_errors.end() ? std::nullopt : std::optional(found->second);
}

// A score as an average of one task, its value still to come.
Average OfOneTask(const records::Score& score) {
  return {.tasks = 1, .scored = 1, .at_chance = score.at_chance ? 1 : 0, .selected_on_test = score.selected_on_test};
}

Average NotScored(std::string_view task) { return {.tasks = 1, .missing = {std::string(task)}}; }

Average AverageOfMetrics(const BenchmarkTask& task, const records::TaskScores& scores) {
  const auto found = scores.find(std::string(task.name));
  if (found == scores.end()) return NotScored(task.name);
  const records::Score& score = found->second;
  Average average = OfOneTask(score);
  double sum = 0;
  for (const std::string_view metric : task.metrics) {
    const auto value = score.metrics.find(std::string(metric));
    if (value != score.metrics.end() && std::isfinite(value->second))
      sum += value->second;
    else
      average.missing.push_back(std::string(task.name) + " " + std::string(metric));
  }
  if (!average.missing.empty()) return average;
  average.value = sum / static_cast<double>(task.metrics.size());
  average.standard_error = ErrorOf(task, score);
  return average;
}

bool HasValue(const Average& average) { return average.value.has_value(); }
bool HasError(const Average& average) { return average.standard_error.has_value(); }

Average MeanOf(std::span<const Average> parts) {
  const auto count = static_cast<double>(parts.size());
  Average mean;
  double sum = 0, squares = 0;
  for (const Average& part : parts) {
    sum += part.value.value_or(0);
    squares += part.standard_error.value_or(0) * part.standard_error.value_or(0);
    mean.tasks += part.tasks;
    mean.scored += part.scored;
    mean.at_chance += part.at_chance;
    mean.selected_on_test |= part.selected_on_test;
    mean.missing.insert(mean.missing.end(), part.missing.begin(), part.missing.end());
  }
  if (parts.empty() || !std::ranges::all_of(parts, &HasValue)) return mean;
  mean.value = sum / count;
  if (std::ranges::all_of(parts, &HasError)) mean.standard_error = std::sqrt(squares) / count;
  return mean;
}

// An average goes before a task of its name: SQuAD's, which may lack a metric, and a user's own.
Average PartOf(const records::TaskScores& scores, const BenchmarkAverages& averages, const std::string& name) {
  const Average* average = FindAverage(averages, name);
  const auto task = scores.find(name);
  if (average && (average->value || task == scores.end())) return *average;
  if (task == scores.end()) return NotScored(name);
  Average part = OfOneTask(task->second);
  if (std::isfinite(task->second.value)) {
    part.value = task->second.value;
    part.standard_error = task->second.standard_error;
  } else {
    part.missing.push_back(name);
  }
  return part;
}

BenchmarkTask SquadTaskFor(SquadValue value) {
  BenchmarkTask task = SquadTasks().front();
  if (value == SquadValue::kExactMatch) task.metrics = {"exact_match"};
  if (value == SquadValue::kF1) task.metrics = {"f1"};
  return task;
}

}  // namespace

std::span<const BenchmarkTask> GlueTasks() {
  static const std::vector<BenchmarkTask> kTasks = {
      {"glue_cola", {"matthews"}},
      {"glue_sst2", {"accuracy"}},
      {"glue_mrpc", {"accuracy", "f1"}},
      {"glue_stsb", {"pearson", "spearman"}},
      {"glue_qqp", {"accuracy", "f1"}},
      {"glue_mnli", {"matched_accuracy", "mismatched_accuracy"}},
      {"glue_qnli", {"accuracy"}},
      {"glue_rte", {"accuracy"}},
      {kWnli, {"accuracy"}},
  };
  return kTasks;
}

std::span<const BenchmarkTask> SuperGlueTasks() {
  static const std::vector<BenchmarkTask> kTasks = {
      {"superglue_boolq", {"accuracy"}},
      {"superglue_cb", {"accuracy", "f1_macro"}},
      {"superglue_copa", {"accuracy"}},
      {"superglue_multirc", {"f1a", "exact_match"}},
      {"superglue_record", {"f1", "exact_match"}},
      {"superglue_rte", {"accuracy"}},
      {"superglue_wic", {"accuracy"}},
      {"superglue_wsc", {"accuracy"}},
  };
  return kTasks;
}

std::span<const BenchmarkTask> SquadTasks() {
  static const std::vector<BenchmarkTask> kTasks = {{"squad", {"exact_match", "f1"}}};
  return kTasks;
}

BenchmarkAverages AverageScores(const records::TaskScores& scores, const AverageOptions& options) {
  BenchmarkAverages averages;
  std::vector<Average> all;
  const auto average = [&](std::span<const BenchmarkTask> tasks) {
    std::vector<Average> values;
    for (const BenchmarkTask& task : tasks)
      if (task.name != kWnli || options.with_wnli) values.push_back(AverageOfMetrics(task, scores));
    all.insert(all.end(), values.begin(), values.end());
    return MeanOf(values);
  };
  const BenchmarkTask squad = SquadTaskFor(options.squad);
  averages.glue = average(GlueTasks());
  averages.superglue = average(SuperGlueTasks());
  averages.squad = average({&squad, 1});
  averages.overall = MeanOf(std::array{averages.glue, averages.superglue, averages.squad});
  averages.tasks = MeanOf(all);
  return averages;
}

std::span<const std::string_view> AverageNames() { return kAverageNames; }

const Average* FindAverage(const BenchmarkAverages& averages, std::string_view name) {
  const std::array<const Average*, 4> all = {&averages.glue, &averages.superglue, &averages.squad, &averages.tasks};
  const auto found = std::ranges::find(kAverageNames, name);
  return found == kAverageNames.end() ? nullptr : all[static_cast<size_t>(found - kAverageNames.begin())];
}

bool IsAverage(std::string_view name) { return std::ranges::count(kAverageNames, name) > 0; }

std::vector<Average> AveragesOfParts(const records::TaskScores& scores, std::span<const std::string> parts,
                                     const AverageOptions& options) {
  BenchmarkAverages averages;  // a good part of the work, which plain tasks do not need
  if (std::ranges::any_of(parts, &IsAverage)) averages = AverageScores(scores, options);
  std::vector<Average> found;
  for (const std::string& part : parts) found.push_back(PartOf(scores, averages, part));
  return found;
}

Average MeanOfParts(const records::TaskScores& scores, std::span<const std::string> parts,
                    const AverageOptions& options) {
  return MeanOf(AveragesOfParts(scores, parts, options));
}

bool EntersAverages(std::string_view task) { return task != kWnli && TaskOrder(task) < TaskOrder(""); }

int TaskOrder(std::string_view task) {
  int order = 0;
  for (const auto tasks : {GlueTasks(), SuperGlueTasks(), SquadTasks()})
    for (const BenchmarkTask& known : tasks) {
      if (known.name == task) return order;
      ++order;
    }
  return order;
}

}  // namespace allometry::analysis
