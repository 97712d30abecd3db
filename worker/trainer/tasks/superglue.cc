#include "worker/trainer/tasks/superglue.h"

#include <algorithm>

namespace allometry::trainer {

std::span<const std::string_view> SuperglueTask::files() const {
  static constexpr std::array<std::string_view, 2> kFiles = {"train.jsonl", "val.jsonl"};
  return kFiles;
}

common::Status SuperglueTask::AddWholeRow(const JsonRow& row, SuperglueSplit* split) const {
  const size_t examples = split->examples.size(), passages = split->passages.size();
  const std::map<std::string, int64_t> counts = *split->counts;
  common::Status status = AddRow(row, split);
  if (status.ok()) return status;
  split->examples.resize(examples);
  std::erase_if(split->passages, [&](const auto& p) { return p.second >= static_cast<int32_t>(passages); });
  *split->counts = counts;
  return status;
}

common::Result<TaskExamples> SuperglueTask::Read(const TaskFiles& files, BadRows bad_rows) const {
  TaskExamples examples;
  for (const bool train : {true, false}) {
    SuperglueSplit split{.train = train, .name = train ? "train" : "valid", .counts = &examples.counts};
    ALLO_RETURN_IF_ERROR(ReadJsonLines(files, name(), train ? "train.jsonl" : "val.jsonl", bad_rows, split.name,
                                       split.counts, [&](const JsonRow& row) { return AddWholeRow(row, &split); }));
    EndSplit(&split);
    (train ? examples.train : examples.valid) = std::move(split.examples);
  }
  return examples;
}

common::Result<TaskExample> SuperglueExample(const JsonRow& row, std::string_view prefix,
                                             std::initializer_list<const char*> fields) {
  TaskExample example;
  example.input = prefix;
  for (const char* field : fields) {
    ALLO_ASSIGN_OR_RETURN(const std::string text, row.Text(field));
    example.input.append(" ").append(field).append(": ").append(text);
  }
  ALLO_ASSIGN_OR_RETURN(example.id, row.Id("idx"));
  return example;
}

common::Result<int32_t> SuperglueLabel(const JsonRow& row, std::span<const std::string_view> words) {
  ALLO_ASSIGN_OR_RETURN(const std::string label, row.Text("label"));
  const auto found = std::ranges::find(words, label);
  if (found != words.end()) return static_cast<int32_t>(found - words.begin());
  std::string known;
  for (std::string_view word : words) known += " " + std::string(word);
  return row.Wrong("the label '" + label + "' is none of:" + known);
}

}  // namespace allometry::trainer
