// superglue_boolq: yes or no to a question about a passage (Clark et al. 2019)
//   boolq passage: Persian is spoken in Iran. question: is persian spoken in iran  ->  True
#include "worker/trainer/tasks/superglue.h"

namespace allometry::trainer {
namespace {

class SuperglueBoolq : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_boolq"; }
  std::span<const std::string_view> labels() const override { return kFalseTrue; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(TaskExample example, SuperglueExample(row, "boolq", {"passage", "question"}));
    ALLO_ASSIGN_OR_RETURN(example.label, row.Truth("label"));
    ALLO_ASSIGN_OR_RETURN(const std::string passage, row.Text("passage"));
    example.passage = split->PassageNumber(passage);
    split->examples.push_back(std::move(example));
    return common::Ok();
  }
};

}  // namespace

const Task& SuperglueBoolqTask() {
  static const SuperglueBoolq task;
  return task;
}

}  // namespace allometry::trainer
