#pragma once

#include <cstdint>

namespace allometry::common {

// Milliseconds. Wall-clock times are stored for people and decide nothing; leases and timers use boot time, which goes
// on counting while a machine is suspended and never jumps.
int64_t UnixMillis();
int64_t BootMillis();

}  // namespace allometry::common
