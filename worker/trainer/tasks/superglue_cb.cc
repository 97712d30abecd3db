// superglue_cb: is the writer committed to an embedded clause? (de Marneffe et al. 2019, the CommitmentBank)
//   cb hypothesis: he was helping premise: Did he think he was helping?  ->  contradiction
#include <array>

#include "worker/trainer/tasks/superglue.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 3> kCbLabels = {"entailment", "contradiction", "neutral"};
constexpr std::array<std::string_view, 2> kCbMetrics = {"f1_macro", "accuracy"};

class SuperglueCb : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_cb"; }
  std::span<const std::string_view> labels() const override { return kCbLabels; }
  std::span<const std::string_view> metrics() const override { return kCbMetrics; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(TaskExample example, SuperglueExample(row, "cb", {"hypothesis", "premise"}));
    ALLO_ASSIGN_OR_RETURN(example.label, SuperglueLabel(row, kCbLabels));
    split->examples.push_back(std::move(example));
    return common::Ok();
  }
};

}  // namespace

const Task& SuperglueCbTask() {
  static const SuperglueCb task;
  return task;
}

}  // namespace allometry::trainer
