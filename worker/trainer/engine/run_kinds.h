#pragma once

#include "worker/trainer/engine/session.h"

namespace allometry::trainer {

// One run of the kind that the file names, from its start event to its result event.
Ending RunKind(const RunContext& context);

// `prepare`: text and tasks to tokens, by the data library; output `data`.
Ending RunPrepare(const RunContext& context);

// `pretrain`: an objective over text; output `model`, the validation measures.
Ending RunPretrain(const RunContext& context);

// `finetune`: the mixture of tasks from the parent's weights; output `model`, one entry of `scores` for each task.
Ending RunFinetune(const RunContext& context);

}  // namespace allometry::trainer
