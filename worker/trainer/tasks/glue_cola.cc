// glue_cola: is a sentence grammatical? (Warstadt et al. 2019, CoLA)
//   cola sentence: The sailors rode the breeze clear of the rocks.  ->  acceptable
// Its files have no header: source, label, the linguist's own mark, sentence.
#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {

const Task& GlueColaTask() {
  static const GlueTask task(GlueDescription{.name = "glue_cola",
                                             .prefix = "cola",
                                             .fields = {{"sentence", "sentence"}},
                                             .label_column = "label",
                                             .labels = {"unacceptable", "acceptable"},
                                             .file_labels = {"0", "1"},
                                             .metrics = {"matthews"},
                                             .columns = {"source", "label", "mark", "sentence"}});
  return task;
}

}  // namespace allometry::trainer
