#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "worker/trainer/tasks/task_data.h"

namespace allometry::trainer {

// What a model answered to examples of one split, as texts without blanks around them.
struct SplitAnswers {
  std::string split;                 // "valid", "matched", … or "holdout"
  const TaskSplit* data = nullptr;   // outlives it
  std::vector<int64_t> examples;     // numbers within `data`, at least one
  std::vector<std::string> answers;  // one each
};

struct MetricScore {
  std::string metric;  // as in the task, behind "<split>_" where there are several splits
  double value = 0;    // a fraction in 0 … 1; a correlation in -1 … 1
  std::optional<double> standard_error;
};

// What ScoreTask says about one task's answers.
struct TaskScore {
  std::string task, benchmark;
  bool in_average = true;
  std::vector<MetricScore> metrics;
  double value = 0;  // mean of the metrics
  std::optional<double> standard_error;
  // The value of the best constant answer: of accuracy, the share of the most frequent label. Of free text with
  // choices, what a choice at random is expected to get. Absent for other free text.
  std::optional<double> majority;
  bool at_chance = false;  // value <= majority (0 where there is none) + 2 standard errors
  int64_t examples = 0;
  int64_t unparsed = 0;         // answers that are none of the labels or choices, or no number
  common::Json ToJson() const;  // members of an entry of `scores` in the result event
};

// Scores the answers to one task, a list a split. Standard errors are those of a bootstrap over examples, or over
// passages where examples have them (metrics.h); of independent examples' means the bootstrap's limit, the population
// deviation over the square root of the examples. Splits are independent of each other. `with_errors` false: none, for
// selection.
TaskScore ScoreTask(const TaskData& task, std::span<const SplitAnswers> splits, bool with_errors = true);

// A line for the file of predictions, for answer i: {"split", "id", "prediction", "gold"}; `gold` is the label's text,
// the number, or the list of references.
common::Json PredictionOf(const TaskData& task, const SplitAnswers& answers, size_t i);

}  // namespace allometry::trainer
