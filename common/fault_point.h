#pragma once

#include <string_view>

namespace allometry::common {

// A named place at which a test may let the process die. When the environment variable ALLOMETRY_FAULT_POINT is `name`
// or `name:N`, the N-th arrival (1 when not given) at this place kills the process with SIGKILL: no destructor, handler
// or buffer gets a chance, as in a crash. One line on standard error says so before. Otherwise, and in any other
// process, this is a check of one pointer.
//
// The variable is read at the first arrival anywhere in the process. Thread-safe. docs/failure.md lists all names.
void FaultPoint(std::string_view name);

}  // namespace allometry::common
