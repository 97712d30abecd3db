#include "coordinator/scheduler/policies.h"

namespace allometry::scheduler {

// Small cells first: most points of a slope early, and mistakes show while they are cheap.
const Policy kFewestFlopsFirst{"fewest_flops_first", [](const Run& run) { return run.flops; }};

}  // namespace allometry::scheduler
