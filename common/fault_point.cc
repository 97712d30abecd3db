#include "common/fault_point.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace allometry::common {
namespace {

struct Plan {
  std::string name;
  int64_t deadly_arrival = 1;
  std::atomic<int64_t> arrivals = 0;
};

// Null when no death is planned. Never freed: other threads may arrive while the process ends.
Plan* PlanFromEnvironment() {
  const char* value = std::getenv("ALLOMETRY_FAULT_POINT");
  if (value == nullptr || *value == '\0') return nullptr;
  auto* plan = new Plan{value};
  if (const size_t colon = plan->name.find(':'); colon != std::string::npos) {
    plan->deadly_arrival = std::atoll(value + colon + 1);
    plan->name.resize(colon);
  }
  return plan;
}

[[noreturn]] void Die(const std::string& name) {
  const std::string line = "dies at fault point " + name + "\n";
  (void)!::write(STDERR_FILENO, line.data(), line.size());
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

}  // namespace

void FaultPoint(std::string_view name) {
  static Plan* const plan = PlanFromEnvironment();
  if (plan != nullptr && plan->name == name && ++plan->arrivals == plan->deadly_arrival) Die(plan->name);
}

}  // namespace allometry::common
