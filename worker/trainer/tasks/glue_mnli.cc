// glue_mnli: does the premise entail the hypothesis? (Williams et al. 2018, MultiNLI)
//   mnli hypothesis: I hate pigeons. premise: My feelings towards pigeons are mixed.  ->  neutral
// Two validation splits: matched is of the training text's genres, mismatched of others. The files differ in how many
// annotators' labels they list (label1 … label5); gold_label is what counts, and "-" there, as in MultiNLI's own
// files, means that the annotators did not agree.
#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {

const Task& GlueMnliTask() {
  static const GlueTask task(GlueDescription{.name = "glue_mnli",
                                             .prefix = "mnli",
                                             .fields = {{"hypothesis", "sentence2"}, {"premise", "sentence1"}},
                                             .label_column = "gold_label",
                                             .labels = {"entailment", "neutral", "contradiction"},
                                             .file_labels = {"entailment", "neutral", "contradiction"},
                                             .id_columns = {"index"},
                                             .no_label = "-",
                                             .valid_files = {"dev_matched.tsv", "dev_mismatched.tsv"},
                                             .valid_splits = {"matched", "mismatched"}});
  return task;
}

}  // namespace allometry::trainer
