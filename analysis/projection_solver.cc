#include <Eigen/Core>
#include <cmath>

#include "analysis/law_solver.h"
#include "analysis/parallel.h"
#include "analysis/projection_basis.h"

namespace allometry::analysis {
namespace {

// Rounding; and, in a replicate, an error of the parameters far below their spread.
constexpr double kLeastDescent = 1e-13, kLeastReplicateGain = 1e-9;

class ProjectionSolver final : public LawSolver {
 public:
  ProjectionSolver(LawForm form, std::span<const LawPoint> points) : law_(form, points) {}

  size_t points() const override { return law_.points().y.size(); }

  std::vector<StartResult> FitFromGrid(int threads) const override {
    const std::vector<ThetaVector> grid = ThetaGrid(law_.basis());
    std::vector<StartResult> results(grid.size());
    ParallelFor(grid.size(), threads, [&](size_t i) {
      const ProjectionResult end = FitProjection(law_.basis(), law_.points(), grid[i], kLeastDescent);
      const Projected start = ProjectAt(law_.basis(), law_.points(), grid[i]);
      results[i] = {law_.Outer(grid[i], start.linear), law_.Outer(end.theta, end.at.linear), end.at.objective};
    });
    return results;
  }

  std::optional<std::vector<double>> Refit(std::span<const double> counts,
                                           std::span<const double> warm) const override {
    const ProjectionResult end = FitProjection(law_.basis(), Counted(counts), law_.Theta(warm), kLeastReplicateGain);
    if (!end.at.determined || !std::isfinite(end.at.objective)) return std::nullopt;
    return law_.Outer(end.theta, end.at.linear);
  }

  LocalGeometry Inspect(std::span<const double> parameters) const override {
    const ThetaVector theta = law_.Theta(parameters);
    const Projected at = ProjectAt(law_.basis(), law_.points(), theta);
    LocalGeometry out;
    const std::vector<int> free = FreeCoordinates(theta, at, &out.active_bounds);
    const auto size = static_cast<Eigen::Index>(free.size());
    Eigen::VectorXd gradient = Eigen::VectorXd::Zero(size);
    Eigen::MatrixXd gauss_newton = Eigen::MatrixXd::Zero(size, size);
    const ProjectionPoints& points = law_.points();
    for (size_t i = 0; i < points.y.size(); ++i) {
      const BasisValues basis = law_.basis().evaluate(theta.data(), points.u0[i], points.u1[i]);
      double residual = points.y[i];
      for (int j = 0; j < law_.basis().linear; ++j) residual -= at.linear[j] * basis.value[j];
      const Eigen::VectorXd jacobian = Jacobian(basis, at, free);
      out.objective += 0.5 * points.weight[i] * residual * residual;
      out.floor += 0.5e-24 * points.weight[i] * points.y[i] * points.y[i];
      gradient -= points.weight[i] * residual * jacobian;
      gauss_newton += points.weight[i] * jacobian * jacobian.transpose();
    }
    out.gradient.assign(gradient.begin(), gradient.end());
    out.gauss_newton.assign(gauss_newton.reshaped().begin(), gauss_newton.reshaped().end());
    return out;
  }

 private:
  ProjectionPoints Counted(std::span<const double> counts) const {
    const ProjectionPoints& all = law_.points();
    ProjectionPoints out;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] <= 0) continue;
      out.u0.push_back(all.u0[i]), out.u1.push_back(all.u1[i]), out.y.push_back(all.y[i]);
      out.weight.push_back(all.weight[i] * counts[i]);
    }
    return out;
  }

  // Coefficients by number, then theta from kMostLinear on; a coefficient of 0 takes its theta with it only in name.
  std::vector<int> FreeCoordinates(const ThetaVector& theta, const Projected& at,
                                   std::vector<std::string>* bounds) const {
    std::vector<int> free;
    for (int j = 0; j < law_.basis().linear; ++j) {
      if (at.linear[j] > 0)
        free.push_back(j);
      else
        bounds->push_back(law_.LinearName(j) + " is 0");
    }
    for (int k = 0; k < theta.size(); ++k) {
      const ThetaRange& range = law_.basis().theta[static_cast<size_t>(k)];
      if (theta(k) > range.low && theta(k) < range.high)
        free.push_back(kMostLinear + k);
      else
        bounds->push_back(law_.ThetaName(k) + " is at an end of its range");
    }
    return free;
  }

  // By the logarithms of the coefficients, and theta.
  Eigen::VectorXd Jacobian(const BasisValues& basis, const Projected& at, const std::vector<int>& free) const {
    Eigen::VectorXd out = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(free.size()));
    for (size_t c = 0; c < free.size(); ++c) {
      double& entry = out(static_cast<Eigen::Index>(c));
      if (free[c] < kMostLinear) {
        entry = at.linear[free[c]] * basis.value[free[c]];
        continue;
      }
      for (int j = 0; j < law_.basis().linear; ++j) entry += at.linear[j] * basis.slope[j][free[c] - kMostLinear];
    }
    return out;
  }

  LawProjection law_;
};

}  // namespace

std::unique_ptr<LawSolver> MakeProjectionSolver(LawForm form, std::span<const LawPoint> points) {
  return std::make_unique<ProjectionSolver>(form, points);
}

}  // namespace allometry::analysis
