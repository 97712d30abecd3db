#pragma once

namespace allometry::analysis {

// What analyses take, in size, but for zero: degrees of freedom take fourth powers, which stay finite from these.
inline constexpr double kLeastNumber = 1e-60, kMostNumber = 1e60;

}  // namespace allometry::analysis
