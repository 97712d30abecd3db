#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/law_forms.h"

// IsoFLOP parabolas (Hoffmann et al. 2022, approach 2), as a diagnostic beside the law: a parabola's minimum is biased
// when sizes lie unevenly around it or far from it.
namespace allometry::analysis {

// The runs of one compute, L = c0 + c1 u + c2 u^2 by least squares in u = ln N.
struct IsoFlopCurve {
  double flops = 0;  // geometric mean of 6 N D
  size_t points = 0;
  double curvature = 0;                            // c2, nats per squared e-fold of N
  std::optional<double> parameters, tokens, loss;  // at the minimum
  double log_standard_error = 0;                   // of ln N at the minimum, by the delta method; 0 from 3 points
  std::string refused;                             // why there is no minimum
};

struct IsoFlopResult {
  std::vector<IsoFlopCurve> curves;  // by rising compute
  // N_opt = e^intercept C^exponent by least squares through the curves' minima. Absent with fewer than two.
  std::optional<double> exponent, intercept;
  // From three minima on; the residuals' own.
  std::optional<double> exponent_standard_error;
};

// Points are (N, D, loss). They belong to one curve as long as the next compute is at most `tolerance` times the
// curve's first: 1.2 separates grids of a factor of 1.5 and more. kInvalidArgument: a tolerance of 1 or less, or a
// value that is not positive and finite.
common::Result<IsoFlopResult> FitIsoFlop(std::span<const LawPoint> points, double tolerance = 1.2);

}  // namespace allometry::analysis
