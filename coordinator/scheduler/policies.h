#pragma once

#include "coordinator/scheduler/state.h"

// Every policy: one file policy_<name>.cc, one line here, one in policies.cc and one scenario in the tests.
namespace allometry::scheduler {

extern const Policy kFewestFlopsFirst;
extern const Policy kFifo;

}  // namespace allometry::scheduler
