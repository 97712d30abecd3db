#pragma once

namespace allometry::trainer {

// SIGTERM and SIGINT ask for a checkpoint and the exit code 40. The handler only sets a flag; a second SIGINT
// ends the process at once. SIGPIPE is ignored.
void InstallStopSignals();

// Whether one has come. Thread-safe.
bool StopRequested();

// While set, a signal ends the process at once with the exit code 40: for work inside a library that cannot be asked
// to stop, and that leaves nothing worth keeping. Thread-safe.
void SetStopAtOnce(bool at_once);

// For tests: sets or clears the flag.
void SetStopRequested(bool requested);

}  // namespace allometry::trainer
