#include "coordinator/scheduler/policies.h"

namespace allometry::scheduler {

// In the order of the sweep file: equal ranks, so the run's number decides.
const Policy kFifo{"fifo", [](const Run&) { return 0.0; }};

}  // namespace allometry::scheduler
