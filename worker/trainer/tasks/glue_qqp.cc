// glue_qqp: do two questions ask the same? (Quora Question Pairs)
//   qqp question1: How do I cook rice? question2: How is rice cooked?  ->  duplicate
// The published train.tsv has about twenty rows that a line break inside a question cut in two
// (nyu-mll/GLUE-baselines issue 5; 363,849 whole rows, as T5 counts them): rows with too few columns are left out and
// counted.
#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {

const Task& GlueQqpTask() {
  static const GlueTask task(GlueDescription{.name = "glue_qqp",
                                             .prefix = "qqp",
                                             .fields = {{"question1", "question1"}, {"question2", "question2"}},
                                             .label_column = "is_duplicate",
                                             .labels = {"not_duplicate", "duplicate"},
                                             .file_labels = {"0", "1"},
                                             .metrics = {"f1", "accuracy"},
                                             .id_columns = {"id"},
                                             .skip_short_rows = true});
  return task;
}

}  // namespace allometry::trainer
