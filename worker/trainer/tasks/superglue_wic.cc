// superglue_wic: is a word used in the same sense in two sentences? (Pilehvar and Camacho-Collados 2019)
//   wic sentence1: Come to my place. sentence2: A place for it. word: place  ->  False
// Where in the sentences the word stands is not part of the input, as in T5.
#include "worker/trainer/tasks/superglue.h"

namespace allometry::trainer {
namespace {

class SuperglueWic : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_wic"; }
  std::span<const std::string_view> labels() const override { return kFalseTrue; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(TaskExample example, SuperglueExample(row, "wic", {"sentence1", "sentence2", "word"}));
    ALLO_ASSIGN_OR_RETURN(example.label, row.Truth("label"));
    split->examples.push_back(std::move(example));
    return common::Ok();
  }
};

}  // namespace

const Task& SuperglueWicTask() {
  static const SuperglueWic task;
  return task;
}

}  // namespace allometry::trainer
