#pragma once

namespace allometry::cli {

// Counts SIGINT and SIGTERM from now on instead of ending the program. Trainers are not reached by a terminal's Ctrl-C:
// they have process groups of their own.
void CountInterrupts();
int InterruptCount();

}  // namespace allometry::cli
