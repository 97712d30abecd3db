// glue_wnli: is the second sentence the first one with its pronoun resolved rightly? (Winograd schemas as inference;
// Levesque et al. 2012, Wang et al. 2019)
//   wnli sentence1: The fish ate the worm. It was tasty. sentence2: The worm was tasty.  ->  entailment
// Left out of averages, as is the custom: its validation sentences stand in training with the opposite label.
#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {
namespace {

class GlueWnli : public GlueTask {
 public:
  using GlueTask::GlueTask;
  bool in_average() const override { return false; }
};

}  // namespace

const Task& GlueWnliTask() {
  static const GlueWnli task(GlueDescription{.name = "glue_wnli",
                                             .prefix = "wnli",
                                             .fields = {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}},
                                             .label_column = "label",
                                             .labels = {"not_entailment", "entailment"},
                                             .file_labels = {"0", "1"},
                                             .id_columns = {"index"}});
  return task;
}

}  // namespace allometry::trainer
