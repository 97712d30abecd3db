#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "records/records.h"

// The averages by which GLUE (arXiv 1804.07461), SuperGLUE (arXiv 1905.00537) and SQuAD v1.1 (arXiv 1606.05250) are
// reported, and D of Tay et al. 2022 (arXiv 2207.10551), which is the mean of the three. Fractions as the scores are;
// the benchmarks print 100 times as much. Pure functions.
namespace allometry::analysis {

// A task of a benchmark and the metrics that it is judged by. Its value is their mean.
struct BenchmarkTask {
  std::string_view name;
  std::vector<std::string_view> metrics;
};

// In the benchmarks' own order. MNLI's two validation sets are two metrics of one task; WNLI is the last of GLUE's.
std::span<const BenchmarkTask> GlueTasks();
std::span<const BenchmarkTask> SuperGlueTasks();
std::span<const BenchmarkTask> SquadTasks();  // SQuAD alone

// SQuAD gives two scores and no rule to make one of them. The default is the rule of every other task with two, ReCoRD
// with the same two among them. T5's main tables (arXiv 1910.10683) show the exact match alone; Tay et al. do not say.
enum class SquadValue { kMean, kExactMatch, kF1 };

struct AverageOptions {
  bool with_wnli = false;  // in GLUE's average and in that of the tasks, which then are eighteen
  SquadValue squad = SquadValue::kMean;
};

// A mean of tasks, or of means of tasks.
struct Average {
  std::optional<double> value;  // absent unless all that it is a mean of is there
  // Of the value, with tasks taken as independent: the root of the sum of squares over their number. That holds for the
  // examples drawn, and not for what the tasks of one model have in common (its seed). Absent if a task has none.
  std::optional<double> standard_error;
  int tasks = 0;                     // that are needed
  int scored = 0;                    // of them that have any score
  int at_chance = 0;                 // of them that are at chance
  bool selected_on_test = false;     // some of its scores are
  std::vector<std::string> missing;  // "TASK" or, of a task that lacks some of its metrics, "TASK METRIC", in order

  // All of its tasks are at chance. With one that is not, the average tells something.
  bool AtChance() const { return tasks > 0 && at_chance == tasks; }
};

struct BenchmarkAverages {
  Average glue, superglue;  // means over their eight tasks
  Average squad;
  Average overall;  // D: the mean of the three
  Average tasks;    // the mean of the seventeen tasks
};

// Tasks that belong to no benchmark enter none.
BenchmarkAverages AverageScores(const records::TaskScores& scores, const AverageOptions& options = {});

// The names by which a request asks for an average: "glue", "superglue", "squad", "tasks" (of the seventeen); null for
// any other name.
std::span<const std::string_view> AverageNames();
const Average* FindAverage(const BenchmarkAverages& averages, std::string_view name);
bool IsAverage(std::string_view name);

// Some tasks' values as their trainer reported them, and averages by their names, in the order of `parts`.
std::vector<Average> AveragesOfParts(const records::TaskScores& scores, std::span<const std::string> parts,
                                     const AverageOptions& options = {});
// The mean of those.
Average MeanOfParts(const records::TaskScores& scores, std::span<const std::string> parts,
                    const AverageOptions& options = {});

bool EntersAverages(std::string_view task);  // whether it is one of the seventeen
// Rank of a task: the benchmarks' in their order, then all others, equal among themselves.
int TaskOrder(std::string_view task);

}  // namespace allometry::analysis
