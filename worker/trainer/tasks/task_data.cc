#include "worker/trainer/tasks/task_data.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/files.h"
#include "worker/trainer/data/span_corruption.h"

namespace allometry::trainer {

namespace fs = std::filesystem;
using common::Json;

namespace {

constexpr std::array<std::string_view, 4> kAnswerKinds = {"label", "number", "text", "referent"};

common::Error Unfit(const std::string& path) {
  return common::DataLoss("'" + path + "' does not fit the task's inputs: prepare the data again");
}

common::Result<std::vector<ExampleFacts>> ReadFacts(const fs::path& path) {
  ALLO_ASSIGN_OR_RETURN(const std::string text, common::ReadFile(path));
  std::vector<ExampleFacts> facts;
  try {
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      facts.push_back(ExampleFacts::FromJson(Json::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                                                         text.begin() + static_cast<std::ptrdiff_t>(end))));
      at = end + 1;
    }
  } catch (const Json::exception& e) {
    return common::DataLoss("'" + path.string() + "' line " + std::to_string(facts.size() + 1) + ": " + e.what() +
                            "; prepare the data again");
  }
  return facts;
}

}  // namespace

std::string_view NameOf(AnswerKind answer) { return kAnswerKinds[static_cast<size_t>(answer)]; }

Json ExampleFacts::ToJson() const {
  Json json = Json::object();
  if (!id.empty()) json["id"] = id;
  if (!references.empty()) json["references"] = references;
  if (!choices.empty()) json["choices"] = choices;
  if (value != 0) json["value"] = value;
  if (question >= 0) json["question"] = question;
  if (passage >= 0) json["passage"] = passage;
  return json;
}

ExampleFacts ExampleFacts::FromJson(const Json& json) {
  ExampleFacts facts;
  facts.id = json.value("id", "");
  facts.references = json.value("references", facts.references);
  facts.choices = json.value("choices", facts.choices);
  facts.value = json.value("value", 0.0);
  facts.question = json.value("question", -1);
  facts.passage = json.value("passage", -1);
  return facts;
}

common::Result<TaskSplit> TaskSplit::Open(const fs::path& stem, int token_bytes, int64_t label_count) {
  TaskSplit split;
  ALLO_ASSIGN_OR_RETURN(split.inputs_, TokenFile::Open(stem, token_bytes));
  const fs::path path = stem.string() + ".labels";
  ALLO_ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(path));
  split.labels_.resize(bytes.size() / sizeof(int32_t));
  std::memcpy(split.labels_.data(), bytes.data(), split.labels_.size() * sizeof(int32_t));
  const bool known = std::ranges::all_of(
      split.labels_, [&](int32_t l) { return label_count > 0 ? l >= 0 && l < label_count : l >= -1; });
  if (!known || bytes.size() % sizeof(int32_t) != 0 || split.size() != split.inputs_.documents())
    return Unfit(path.string());
  ALLO_ASSIGN_OR_RETURN(auto facts, ReadFacts(stem.string() + ".examples"));
  if (static_cast<int64_t>(facts.size()) != split.size()) return Unfit(stem.string() + ".examples");
  split.facts_ = std::make_shared<const std::vector<ExampleFacts>>(std::move(facts));
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

common::Result<TaskData> TaskData::Open(const fs::path& folder, const Json& entry, int token_bytes,
                                        std::shared_ptr<const Tokenizer> tokenizer) {
  TaskData task;
  task.tokenizer_ = std::move(tokenizer);
  const std::string data_json = "'" + (folder / "data.json").string() + "'";
  try {
    task.name_ = entry.at("name").get<std::string>();
    task.benchmark_ = entry.at("benchmark").get<std::string>();
    task.in_average_ = entry.at("in_average").get<bool>();
    task.metrics_ = entry.at("metrics").get<std::vector<std::string>>();
    task.valid_names_ = entry.at("valid_splits").get<std::vector<std::string>>();
    task.longest_target_ = entry.at("longest_target").get<int64_t>();
    const auto kind = std::ranges::find(kAnswerKinds, entry.at("answer").get<std::string>());
    if (kind == kAnswerKinds.end() || task.metrics_.empty() || task.valid_names_.empty())
      return common::DataLoss(data_json + " describes task '" + task.name_ + "' wrongly: prepare the data again");
    task.answer_ = static_cast<AnswerKind>(kind - kAnswerKinds.begin());
    for (const Json& label : entry.at("labels")) {
      task.labels_.push_back(label.at("text").get<std::string>());
      task.label_tokens_.push_back(label.at("tokens").get<std::vector<int32_t>>());
    }
  } catch (const Json::exception& e) {
    return common::DataLoss(data_json + " describes a task wrongly: " + e.what());
  }
  const std::string stem = (folder / "tasks" / task.name_).string() + ".";
  const auto labels = static_cast<int64_t>(task.labels_.size());
  ALLO_ASSIGN_OR_RETURN(task.train_, TaskSplit::Open(stem + "train", token_bytes, labels));
  for (const std::string& name : task.valid_names_) {
    ALLO_ASSIGN_OR_RETURN(TaskSplit split, TaskSplit::Open(stem + name, token_bytes, labels));
    if (split.size() == 0) return common::DataLoss("task '" + task.name_ + "' has no examples in its part " + name);
    task.valid_.push_back(std::move(split));
  }
  if (labels == 0) {
    ALLO_ASSIGN_OR_RETURN(task.targets_, TokenFile::Open(stem + "targets", token_bytes));
    if (task.targets_.documents() != task.train_.size()) return Unfit(stem + "targets.tokens");
  }
  return task;
}

std::vector<int32_t> TaskData::Target(int64_t i) const {
  return labels_.empty() ? targets_.Document(i) : label_tokens_[static_cast<size_t>(train_.Label(i))];
}

int64_t TaskData::TargetLength(int64_t i) const {
  if (labels_.empty()) return targets_.Offset(i + 1) - targets_.Offset(i);
  return static_cast<int64_t>(label_tokens_[static_cast<size_t>(train_.Label(i))].size());
}

std::string TaskData::AnswerText(std::span<const int64_t> ids) const {
  std::vector<int32_t> narrow;
  for (int64_t id : ids) narrow.push_back(static_cast<int32_t>(id));
  const std::string text = tokenizer_->Decode(narrow);
  const size_t first = text.find_first_not_of(" \t\n");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

std::vector<int32_t> TaskData::Encode(std::string_view text) const {
  std::vector<int32_t> ids = tokenizer_->Encode(text);
  ids.push_back(kEos);
  return ids;
}

int32_t TaskData::ParseLabel(std::string_view answer) const {
  const auto found = std::ranges::find(labels_, answer);
  return found == labels_.end() ? -1 : static_cast<int32_t>(found - labels_.begin());
}

}  // namespace allometry::trainer
