// glue_qnli: does the sentence answer the question? (made from SQuAD; Wang et al. 2019)
//   qnli question: Where was he born? sentence: He was born in Ulm.  ->  entailment
#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {

const Task& GlueQnliTask() {
  static const GlueTask task(GlueDescription{.name = "glue_qnli",
                                             .prefix = "qnli",
                                             .fields = {{"question", "question"}, {"sentence", "sentence"}},
                                             .label_column = "label",
                                             .labels = {"entailment", "not_entailment"},
                                             .file_labels = {"entailment", "not_entailment"},
                                             .id_columns = {"index"}});
  return task;
}

}  // namespace allometry::trainer
