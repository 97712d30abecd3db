#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/law_forms.h"

// What every estimator of a law can do, so that starts, certificates and bootstraps are written once.
namespace allometry::analysis {

// Where one start ended, in the form's own parameters.
struct StartResult {
  std::vector<double> start, parameters;
  double objective = 0;
};

// The objective around given parameters, in coordinates that the estimator chooses (sizes centred, logarithms of what
// is positive). With weights w the Gauss-Newton matrix is the sum of w J J' over the points.
struct LocalGeometry {
  double objective = 0;  // half the (re)weighted sum of squares, or the sum of Huber losses
  double floor = 0;      // an objective that is nothing but rounding
  std::vector<double> gradient;
  std::vector<double> gauss_newton;        // row by row, symmetric
  std::vector<std::string> active_bounds;  // "A is 0", ...: these coordinates are left out above
  std::optional<double> outlier_share;     // of points beyond Huber's delta
};

// Holds the points of one fit. Const methods may be called from several threads at once.
class LawSolver {
 public:
  virtual ~LawSolver() = default;
  virtual size_t points() const = 0;
  // One result a start, in the order of the grid whatever the number of threads (0: all that the machine has).
  virtual std::vector<StartResult> FitFromGrid(int threads) const = 0;
  // The fit to points that count so many times each, begun at `warm`; empty when that data determines none.
  virtual std::optional<std::vector<double>> Refit(std::span<const double> counts,
                                                   std::span<const double> warm) const = 0;
  virtual LocalGeometry Inspect(std::span<const double> parameters) const = 0;
};

// The sum (not mean) of Huber losses over ln L - ln(law), for kParametersTokens and kCompute. The points are checked.
std::unique_ptr<LawSolver> MakeHuberSolver(LawForm form, std::span<const LawPoint> points, double delta);

// Least squares by variable projection (Golub and Pereyra 1973): what the law is linear in is solved, non-negative,
// inside a search over the rest. Of errors relative to the loss; of the loss itself for kTied, as it was published; of
// the accuracy or error itself. All forms. Its Inspect takes the law's other parameters from the argument and solves
// the linear ones anew.
std::unique_ptr<LawSolver> MakeProjectionSolver(LawForm form, std::span<const LawPoint> points);

}  // namespace allometry::analysis
