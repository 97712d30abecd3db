#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "worker/trainer/tasks/json_row.h"
#include "worker/trainer/tasks/task.h"

// What the SuperGLUE tasks share: train.jsonl and val.jsonl of version 2 (test.jsonl has no answers and is not read),
// one JSON object a line. Formats: T5's, as for GLUE (glue.h), with the field and label names of TensorFlow Datasets'
// super_glue 1.0.2. Users of older checkpoints know "wic pos: N sentence1: …" and "multirc questions: …" from the
// paper's time; the preprocessors write neither, and version 2 of the data has no part of speech.
namespace allometry::trainer {

// One split as it is read.
struct SuperglueSplit {
  bool train = false;
  std::string name;  // begins the names of counts
  std::vector<TaskExample> examples;
  std::map<std::string, int64_t>* counts = nullptr;
  std::unordered_map<std::string, int32_t> passages = {};

  // The number of a passage: equal texts are one.
  int32_t PassageNumber(const std::string& text) {
    return passages.emplace(text, static_cast<int32_t>(passages.size())).first->second;
  }
};

class SuperglueTask : public Task {
 public:
  std::string_view benchmark() const override { return "superglue"; }
  int numerics_version() const override { return 1; }
  std::span<const std::string_view> files() const override;
  common::Result<TaskExamples> Read(const TaskFiles& files, BadRows bad_rows) const override;

 protected:
  // Appends the row's examples. kDataLoss: the row is bad.
  virtual common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const = 0;
  // Called when all rows are there.
  virtual void EndSplit(SuperglueSplit* split) const {}

 private:
  // As AddRow; of a row that fails nothing stays.
  common::Status AddWholeRow(const JsonRow& row, SuperglueSplit* split) const;
};

inline constexpr std::array<std::string_view, 2> kFalseTrue = {"False", "True"};

// "<prefix> <field>: <text> …" with the row's texts of these names, and the row's idx as id.
common::Result<TaskExample> SuperglueExample(const JsonRow& row, std::string_view prefix,
                                             std::initializer_list<const char*> fields);

// The position of the row's label among these words. kDataLoss: it is none of them.
common::Result<int32_t> SuperglueLabel(const JsonRow& row, std::span<const std::string_view> words);

}  // namespace allometry::trainer
