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
#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// What scoring needs of an example beside its input and label; see TaskExample for each.
struct ExampleFacts {
  std::string id;  // empty where the file has none
  std::vector<std::string> references, choices;
  double value = 0;
  int32_t question = -1, passage = -1;
  common::Json ToJson() const;  // without what is absent
  // Throws Json::exception for a member of another type.
  static ExampleFacts FromJson(const common::Json& json);
};

// One split of a tokenised task. Thread-safe.
class TaskSplit {
 public:
  // `labels`: how many the task has; of one without, a label is any number from -1 upwards.
  static common::Result<TaskSplit> Open(const std::filesystem::path& stem, int token_bytes, int64_t label_count);
  int64_t size() const { return static_cast<int64_t>(labels_.size()); }
  int32_t Label(int64_t i) const { return labels_[static_cast<size_t>(i)]; }
  std::span<const int32_t> labels() const { return labels_; }
  const ExampleFacts& facts(int64_t i) const { return (*facts_)[static_cast<size_t>(i)]; }
  // Tokens of input i, end mark included.
  int64_t InputLength(int64_t i) const { return inputs_.Offset(i + 1) - inputs_.Offset(i); }
  // Writes input i into `out`, padded with 0. One that is longer is cut and ends with the end mark; returns whether it
  // was.
  bool FillInput(int64_t i, std::span<int32_t> out) const;
  std::vector<int32_t> Input(int64_t i) const { return inputs_.Document(i); }

 private:
  TokenFile inputs_;
  std::vector<int32_t> labels_;
  std::shared_ptr<const std::vector<ExampleFacts>> facts_;
};

// A tokenised task of a data set. Thread-safe.
class TaskData {
 public:
  // `entry`: the task's object in data.json.
  static common::Result<TaskData> Open(const std::filesystem::path& folder, const common::Json& entry, int token_bytes,
                                       std::shared_ptr<const Tokenizer> tokenizer);

  const std::string& name() const { return name_; }
  // As Task has them.
  const std::string& benchmark() const { return benchmark_; }
  bool in_average() const { return in_average_; }
  AnswerKind answer() const { return answer_; }
  const std::vector<std::string>& metrics() const { return metrics_; }

  const TaskSplit& train() const { return train_; }
  // The validation splits, at least one, and their names. `valid` is the first.
  const TaskSplit& valid() const { return valid_.front(); }
  const std::vector<TaskSplit>& valid_splits() const { return valid_; }
  const std::vector<std::string>& valid_names() const { return valid_names_; }

  // The labels' texts, and their ids with the end mark; none of a task with free text.
  const std::vector<std::string>& labels() const { return labels_; }
  const std::vector<std::vector<int32_t>>& label_tokens() const { return label_tokens_; }

  // What a model is trained to answer to training example i, with the end mark, and how many tokens that is.
  std::vector<int32_t> Target(int64_t i) const;
  int64_t TargetLength(int64_t i) const;
  // Of all labels; of free text, of all training examples. End mark included.
  int64_t LongestTarget() const { return longest_target_; }

  // What rank classification chooses from: the example's choices, or the labels, or nothing.
  const std::vector<std::string>& Choices(const ExampleFacts& facts) const {
    return facts.choices.empty() ? labels_ : facts.choices;
  }
  // Whether all examples have choices.
  bool HasChoices() const { return !labels_.empty() || !valid().facts(0).choices.empty(); }

  // The ids as text without blanks around it; padding, an end mark and what follows it are ignored.
  std::string AnswerText(std::span<const int64_t> ids) const;
  std::vector<int32_t> Encode(std::string_view text) const;  // with the end mark
  // The label with this text, kUnparsed (-1) if there is none.
  int32_t ParseLabel(std::string_view answer) const;

 private:
  std::string name_, benchmark_;
  bool in_average_ = true;
  AnswerKind answer_ = AnswerKind::kLabel;
  std::vector<std::string> metrics_, valid_names_;
  TaskSplit train_;
  std::vector<TaskSplit> valid_;
  TokenFile targets_;  // of a task without labels
  std::vector<std::string> labels_;
  std::vector<std::vector<int32_t>> label_tokens_;
  int64_t longest_target_ = 0;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

// "label", "number", "text", "referent", as data.json writes them.
std::string_view NameOf(AnswerKind answer);

}  // namespace allometry::trainer
