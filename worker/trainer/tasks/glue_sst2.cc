// glue_sst2: does a reviewer like the film? (Socher et al. 2013, the Stanford Sentiment Treebank)
//   sst2 sentence: it 's a charming and often affecting journey .  ->  positive
#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {

const Task& GlueSst2Task() {
  static const GlueTask task(GlueDescription{.name = "glue_sst2",
                                             .prefix = "sst2",
                                             .fields = {{"sentence", "sentence"}},
                                             .label_column = "label",
                                             .labels = {"negative", "positive"},
                                             .file_labels = {"0", "1"}});
  return task;
}

}  // namespace allometry::trainer
