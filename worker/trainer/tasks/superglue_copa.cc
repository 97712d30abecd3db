// superglue_copa: which of two sentences is the cause, or the effect, of a third? (Roemmele et al. 2011)
//   copa choice1: It filled. choice2: Water flowed. premise: He turned on the tap. question: effect  ->  choice2
// The answer is the word choice1 or choice2, not the sentence.
#include <array>

#include "worker/trainer/tasks/superglue.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 2> kCopaLabels = {"choice1", "choice2"};

class SuperglueCopa : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_copa"; }
  std::span<const std::string_view> labels() const override { return kCopaLabels; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(TaskExample example,
                          SuperglueExample(row, "copa", {"choice1", "choice2", "premise", "question"}));
    ALLO_ASSIGN_OR_RETURN(const int64_t label, row.Integer("label"));
    if (label != 0 && label != 1) return row.Wrong("the label " + std::to_string(label) + " is neither 0 nor 1");
    example.label = static_cast<int32_t>(label);
    split->examples.push_back(std::move(example));
    return common::Ok();
  }
};

}  // namespace

const Task& SuperglueCopaTask() {
  static const SuperglueCopa task;
  return task;
}

}  // namespace allometry::trainer
