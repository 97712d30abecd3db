// superglue_rte: does the premise entail the hypothesis? (PASCAL's RTE challenges 1, 2, 3 and 5)
//   rte hypothesis: An animal sat. premise: A cat sat on the mat.  ->  entailment
// GLUE has the same pairs in another format: glue_rte.cc.
#include <array>

#include "worker/trainer/tasks/superglue.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 2> kRteLabels = {"entailment", "not_entailment"};

class SuperglueRte : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_rte"; }
  std::span<const std::string_view> labels() const override { return kRteLabels; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(TaskExample example, SuperglueExample(row, "rte", {"hypothesis", "premise"}));
    ALLO_ASSIGN_OR_RETURN(example.label, SuperglueLabel(row, kRteLabels));
    split->examples.push_back(std::move(example));
    return common::Ok();
  }
};

}  // namespace

const Task& SuperglueRteTask() {
  static const SuperglueRte task;
  return task;
}

}  // namespace allometry::trainer
