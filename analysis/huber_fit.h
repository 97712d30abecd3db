#pragma once

#include <array>
#include <vector>

#include "analysis/law_kernel.h"

// Descents of the sum of Huber losses. Pure functions.
namespace allometry::analysis {

// Parameters of points whose x are centred: a_centred = a - alpha centre.
template <int K>
using LawVector = std::array<double, kLawParameters<K>>;

// Where a start ended.
template <int K>
struct Descent {
  LawVector<K> parameters = {};
  double objective = 0;
  int evaluations = 0;
};

struct DescentOptions {
  double delta = 1e-3;
  // From far away: first down sums with larger deltas, which are closer to least squares and so have fewer kinks.
  bool graduated = true;
  int most_evaluations = 200;
};

// Damped Newton steps with the exact Hessian; where that is indefinite or predicts badly, Gauss-Newton steps on the
// reweighted squares (Holland and Welsch 1977). A step is taken only when the objective falls. Ends when no step can
// gain more than rounding, or when a term of the law has vanished at every point: its gradient is then 0 and the start
// is lost.
template <int K>
Descent<K> DescendHuber(const LogPoints<K>& points, const LawVector<K>& start, const DescentOptions& options);

// The grid of starts of Hoffmann et al. 2022 (arXiv 2203.15556, D.3), listed by Besiroglu et al. 2024 (arXiv
// 2404.10102): exponents 0, 0.5 .. 2, e = -1, -0.5 .. 1, a and b = 0, 5 .. 25. 4,500 starts for K = 2, 150 for K = 1.
// Not centred.
template <int K>
std::vector<LawVector<K>> StartGrid();

template <int K>
LawVector<K> Centred(const LawVector<K>& parameters, const std::array<double, K>& centre);
template <int K>
LawVector<K> Uncentred(const LawVector<K>& parameters, const std::array<double, K>& centre);

}  // namespace allometry::analysis
