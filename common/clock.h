#pragma once

#include <cstdint>
#include <string>

namespace allometry::common {

// Milliseconds. Wall-clock times are stored for people and decide nothing; leases and timers use boot time, which goes
// on counting while a machine is suspended and never jumps.
int64_t UnixMillis();
int64_t BootMillis();

// `unix_ms` as UTC in strftime's `format`.
std::string FormatUtc(int64_t unix_ms, const char* format = "%Y-%m-%dT%H:%M:%SZ");

}  // namespace allometry::common
