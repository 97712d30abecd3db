#pragma once

#include <string>

namespace allometry::common {

std::string CpuModel();  // as the kernel names it; "unknown" where it does not

}  // namespace allometry::common
