#pragma once

namespace allometry::trainer {

// `allo-trainer checkpoint ...`: argv[0] is "checkpoint". Prints one JSON object, or an error to standard error, and
// returns the exit code.
int CheckpointMain(int argc, char** argv);

}  // namespace allometry::trainer
