#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/result.h"
#include "worker/trainer/tasks/task.h"

// A task of the user's own, declared without code: JSON lines, one example each.
//   {"input": "translate: Haus", "target": "house"}
//   {"input": "translate: Haus", "target": ["house", "home"]}                 the first is trained on, all are right
//   {"input": "is it warm? 31 degrees", "choices": ["yes", "no"], "label": 0}
// "label" is a position in "choices", from 0, or one of their texts. Optional: "id" (a text or a whole number; else the
// row number) and "passage" (likewise; examples of one passage are not independent). Other members are ignored. All
// rows of a task have targets, or all have choices.
namespace allometry::trainer {

struct JsonlTaskOptions {
  std::string name;  // not that of another task
  // Names as they stand in the map that Read is given.
  std::string train_file = "train.jsonl", valid_file = "valid.jsonl";
  // Of: accuracy (the answer is one of the references, byte by byte), exact_match and f1 (words, by SQuAD's
  // normalisation).
  std::vector<std::string> metrics = {"accuracy"};
};

// kInvalidArgument: no name, a name or a file name that another one has, or a metric that there is not.
common::Result<std::unique_ptr<Task>> MakeJsonlTask(JsonlTaskOptions options);

}  // namespace allometry::trainer
