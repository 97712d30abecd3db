#include "worker/trainer/tasks/task_data.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "common/files.h"
#include "worker/trainer/data/span_corruption.h"

namespace allometry::trainer {

namespace fs = std::filesystem;

common::Result<TaskSplit> TaskSplit::Open(const fs::path& stem, int token_bytes, int64_t label_count) {
  TaskSplit split;
  ALLO_ASSIGN_OR_RETURN(split.inputs_, TokenFile::Open(stem, token_bytes));
  const fs::path path = stem.string() + ".labels";
  ALLO_ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(path));
  split.labels_.resize(bytes.size() / sizeof(int32_t));
  std::memcpy(split.labels_.data(), bytes.data(), split.labels_.size() * sizeof(int32_t));
  const bool known = std::ranges::all_of(split.labels_, [&](int32_t l) { return l >= 0 && l < label_count; });
  if (!known || bytes.size() % sizeof(int32_t) != 0 || split.size() != split.inputs_.documents())
    return common::DataLoss("'" + path.string() + "' does not fit the task's inputs: prepare the data again");
  return split;
}

bool TaskSplit::FillInput(int64_t i, std::span<int32_t> out) const {
  const int64_t length = InputLength(i), width = static_cast<int64_t>(out.size());
  const int64_t n = std::min(length, width);
  inputs_.Read(inputs_.Offset(i), out.first(static_cast<size_t>(n)));
  std::fill(out.begin() + n, out.end(), kPad);
  if (length > width && width > 0) out.back() = kEos;
  return length > width;
}

common::Json TaskScore::ToJson() const {
  return {{"task", task},           {"metric", metric},     {"value", value},
          {"examples", examples},   {"majority", majority}, {"standard_error", standard_error},
          {"at_chance", at_chance}, {"unparsed", unparsed}};
}

common::Result<TaskData> TaskData::Open(const fs::path& folder, const common::Json& entry, int token_bytes,
                                        std::shared_ptr<const Tokenizer> tokenizer) {
  TaskData task;
  task.tokenizer_ = std::move(tokenizer);
  try {
    task.name_ = entry.at("name").get<std::string>();
    task.metric_ = entry.at("metric").get<std::string>();
    for (const common::Json& label : entry.at("labels")) {
      task.labels_.push_back(label.at("text").get<std::string>());
      task.label_tokens_.push_back(label.at("tokens").get<std::vector<int32_t>>());
    }
  } catch (const common::Json::exception& e) {
    return common::DataLoss("'" + (folder / "data.json").string() + "' describes a task wrongly: " + e.what());
  }
  const fs::path stem = folder / "tasks" / task.name_;
  const auto labels = static_cast<int64_t>(task.labels_.size());
  ALLO_ASSIGN_OR_RETURN(task.train_, TaskSplit::Open(stem.string() + ".train", token_bytes, labels));
  ALLO_ASSIGN_OR_RETURN(task.valid_, TaskSplit::Open(stem.string() + ".valid", token_bytes, labels));
  return task;
}

int64_t TaskData::LongestLabel() const {
  size_t longest = 0;
  for (const auto& tokens : label_tokens_) longest = std::max(longest, tokens.size());
  return static_cast<int64_t>(longest);
}

int32_t TaskData::ParseLabel(std::span<const int64_t> answer) const {
  std::vector<int32_t> ids;
  for (int64_t id : answer) ids.push_back(static_cast<int32_t>(id));
  std::string text = tokenizer_->Decode(ids);
  const size_t first = text.find_first_not_of(" \t\n");
  if (first == text.npos) return -1;
  text = text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
  const auto found = std::ranges::find(labels_, text);
  return found == labels_.end() ? -1 : static_cast<int32_t>(found - labels_.begin());
}

TaskScore ScoreTask(const TaskData& task, std::span<const int32_t> predicted) {
  const auto n = static_cast<int64_t>(predicted.size());
  if (n < 1 || n > task.valid().size())
    throw std::invalid_argument("ScoreTask: as many answers as examples are needed");
  std::vector<int64_t> gold_counts(task.labels().size(), 0);
  int64_t right = 0, unparsed = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t gold = task.valid().Label(i);
    ++gold_counts[static_cast<size_t>(gold)];
    right += predicted[static_cast<size_t>(i)] == gold;
    unparsed += predicted[static_cast<size_t>(i)] < 0;
  }
  TaskScore score{.task = task.name(), .metric = task.metric(), .examples = n, .unparsed = unparsed};
  const auto total = static_cast<double>(n);
  score.value = static_cast<double>(right) / total;
  score.majority = static_cast<double>(*std::ranges::max_element(gold_counts)) / total;
  score.standard_error = std::sqrt(score.value * (1 - score.value) / total);
  score.at_chance = score.value <= score.majority + 2 * score.standard_error;
  return score;
}

}  // namespace allometry::trainer
