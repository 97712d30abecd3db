#pragma once

#include <algorithm>
#include <boost/math/tools/toms748_solve.hpp>
#include <functional>

namespace allometry::analysis {

// A root of f between a and b, at which it has opposite signs (or is zero).
inline double RootBetween(const std::function<double(double)>& f, double a, double b) {
  const double fa = f(a), fb = f(b);
  if (fa == 0) return a;
  if (fb == 0) return b;
  boost::uintmax_t most = 200;
  const auto bracket =
      boost::math::tools::toms748_solve(f, std::min(a, b), std::max(a, b), a < b ? fa : fb, a < b ? fb : fa,
                                        boost::math::tools::eps_tolerance<double>(48), most);
  return (bracket.first + bracket.second) / 2;
}

}  // namespace allometry::analysis
