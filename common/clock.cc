#include "common/clock.h"

#include <ctime>

namespace allometry::common {
namespace {

int64_t Millis(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1000 + t.tv_nsec / 1'000'000;
}

}  // namespace

int64_t UnixMillis() { return Millis(CLOCK_REALTIME); }
int64_t BootMillis() { return Millis(CLOCK_BOOTTIME); }

std::string FormatUtc(int64_t unix_ms, const char* format) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &utc)};
}

}  // namespace allometry::common
