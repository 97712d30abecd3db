// glue_rte: does the first sentence entail the second? (PASCAL's RTE challenges 1, 2, 3 and 5)
//   rte sentence1: A cat sat on the mat. sentence2: An animal sat.  ->  entailment
// SuperGLUE has the same pairs in another format: superglue_rte.cc. One row of train.tsv (index 2164) has a doubled tab
// before its label: such rows are mended and counted.
#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {

const Task& GlueRteTask() {
  static const GlueTask task(GlueDescription{.name = "glue_rte",
                                             .prefix = "rte",
                                             .fields = {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}},
                                             .label_column = "label",
                                             .labels = {"entailment", "not_entailment"},
                                             .file_labels = {"entailment", "not_entailment"},
                                             .id_columns = {"index"},
                                             .mend_doubled_tabs = true});
  return task;
}

}  // namespace allometry::trainer
