#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/token_file.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// One split of a tokenised task. Thread-safe.
class TaskSplit {
 public:
  static common::Result<TaskSplit> Open(const std::filesystem::path& stem, int token_bytes, int64_t label_count);
  int64_t size() const { return static_cast<int64_t>(labels_.size()); }
  int32_t Label(int64_t i) const { return labels_[static_cast<size_t>(i)]; }
  std::span<const int32_t> labels() const { return labels_; }
  // Tokens of input i, end mark included.
  int64_t InputLength(int64_t i) const { return inputs_.Offset(i + 1) - inputs_.Offset(i); }
  // Writes input i into `out`, padded with 0. One that is longer is cut and ends with the end mark; returns whether it
  // was.
  bool FillInput(int64_t i, std::span<int32_t> out) const;
  std::vector<int32_t> Input(int64_t i) const { return inputs_.Document(i); }

 private:
  TokenFile inputs_;
  std::vector<int32_t> labels_;
};

// What ScoreTask says about one task's answers. Fractions lie in 0 … 1.
struct TaskScore {
  std::string task, metric;  // metric: "accuracy"
  double value = 0;
  int64_t examples = 0;
  double majority = 0;          // share of the most frequent label
  double standard_error = 0;    // sqrt(value (1 - value) / examples)
  bool at_chance = false;       // value <= majority + 2 standard errors
  int64_t unparsed = 0;         // answers that are no label; they count as wrong
  common::Json ToJson() const;  // an entry of `scores` in the result event
};

// A tokenised task of a data set. Thread-safe.
class TaskData {
 public:
  // `entry`: the task's object in data.json.
  static common::Result<TaskData> Open(const std::filesystem::path& folder, const common::Json& entry, int token_bytes,
                                       std::shared_ptr<const Tokenizer> tokenizer);

  const std::string& name() const { return name_; }
  const std::string& metric() const { return metric_; }
  const TaskSplit& train() const { return train_; }
  const TaskSplit& valid() const { return valid_; }
  // The labels' texts, and their ids with the end mark: what a model is trained to answer.
  const std::vector<std::string>& labels() const { return labels_; }
  const std::vector<std::vector<int32_t>>& label_tokens() const { return label_tokens_; }
  int64_t LongestLabel() const;  // tokens, end mark included

  // The label that these ids spell, blanks around it ignored; padding, an end mark and what follows it are ignored too.
  // -1: none.
  int32_t ParseLabel(std::span<const int64_t> answer) const;

 private:
  std::string name_, metric_;
  TaskSplit train_, valid_;
  std::vector<std::string> labels_;
  std::vector<std::vector<int32_t>> label_tokens_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

// Scores answers to the first predicted.size() validation examples; -1 stands for an answer that is no label. The
// majority share is that of the same examples. At least one prediction, at most valid().size().
TaskScore ScoreTask(const TaskData& task, std::span<const int32_t> predicted);

}  // namespace allometry::trainer
