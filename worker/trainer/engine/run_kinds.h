#pragma once

#include "worker/trainer/engine/session.h"

namespace allometry::trainer {

// One run of the kind that the file names, from its start event to its result event.
Ending RunKind(const RunContext& context);

Ending RunPrepare(const RunContext& context);
Ending RunPretrain(const RunContext& context);
Ending RunFinetune(const RunContext& context);

// `allo-trainer data ...`: hands over to the data library. argv[0] is "data". Returns the process's exit code.
int DataTools(int argc, char** argv);

}  // namespace allometry::trainer
