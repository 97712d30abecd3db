#pragma once

#include <optional>
#include <span>
#include <vector>

#include "analysis/line.h"

// The least-squares polynomial through size means with equal weights, and how well its value is known at any x. Its
// slope, for a line, is that of line.h. Pure values.
namespace allometry::analysis {

// An estimate with its variance. The degrees of freedom belong to the variance.
struct CurveValue {
  double value = 0;
  double variance = 0;
  double degrees = 0;
};

// first minus second, independent: variances add, Satterthwaite's degrees of freedom.
CurveValue Minus(const CurveValue& first, const CurveValue& second);

// What the variance of a value covers.
enum class VarianceBasis {
  kSeeds,  // this grid under other seeds: the variances of the seed interval (Welch's, pooled, or by the delta method)
  kSizes,  // deviations from size to size too, as in the line interval; for lines through three or more sizes only
  kRuns,   // a bootstrap over runs; of crossings of laws, and not of these curves
};
const char* VarianceBasisName(VarianceBasis basis);  // "seeds", "sizes", "runs"

class SizeCurve {
 public:
  // `degree` is 1 or 2. Absent when the sizes' x determine no such polynomial, or nothing tells the variance.
  static std::optional<SizeCurve> Fit(std::span<const SizeSamples> sizes, int degree, VarianceBasis basis);

  CurveValue At(double x) const;

 private:
  SizeCurve() = default;

  // Polynomials in u = (x - centre) / scale, lowest power first.
  double centre_ = 0, scale_ = 1;
  std::vector<double> value_;
  std::vector<double> variance_;  // of the value
  std::vector<double> squares_;   // sum of (each size's part of the variance)^2 / (n_i - 1); empty: degrees_ holds
  double degrees_ = 0;
};

}  // namespace allometry::analysis
