#pragma once

#include "arch/architecture.h"

namespace allometry::arch {

// Applications of a stack's block: before, in and after the recurrence.
constexpr int64_t kUniversalPlainApplications = 2;  // before, and again after
inline int64_t UniversalSteps(int64_t layers) { return 2 * layers; }
inline int64_t UniversalApplications(int64_t layers) {
  return UniversalSteps(layers) + 2 * kUniversalPlainApplications;
}

const Architecture& Universal();

}  // namespace allometry::arch
