#include "worker/trainer/engine/run_kinds.h"

namespace allometry::trainer {

Ending RunKind(const RunContext& context) {
  if (context.config.kind == "prepare") return RunPrepare(context);
  if (context.config.kind == "pretrain") return RunPretrain(context);
  return RunFinetune(context);
}

}  // namespace allometry::trainer
