#include "analysis/projection_fit.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

namespace allometry::analysis {
namespace {

constexpr double kFirstThetaDamping = 1e-3, kLeastThetaDamping = 1e-12, kMostThetaDamping = 1e10;
constexpr double kThetaDampingDown = 0.1, kThetaDampingUp = 8;
constexpr int kMostThetaEvaluations = 200;
constexpr double kDependent = 1e-14;  // a pivot this small of the scaled normal equations

using LinearMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, 0, kMostLinear, kMostLinear>;
using LinearVector = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, kMostLinear, 1>;
using MixedMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, 0, kMostLinear, kMostNonlinear>;

// The normal equations of the linear part, and their solution on some of the columns.
class LinearPart {
 public:
  explicit LinearPart(int columns)
      : normal_(LinearMatrix::Zero(columns, columns)), right_(LinearVector::Zero(columns)) {}

  void Add(const BasisValues& basis, double y, double weight) {
    for (Eigen::Index i = 0; i < right_.size(); ++i) {
      const double scaled = weight * basis.value[static_cast<size_t>(i)];
      right_(i) += scaled * y;
      for (Eigen::Index j = 0; j <= i; ++j) normal_(i, j) += scaled * basis.value[static_cast<size_t>(j)];
    }
  }

  // The least squares with no coefficient below 0: all columns, or else the best of the feasible subsets.
  void Solve() {
    normal_ = normal_.selfadjointView<Eigen::Lower>();
    const int all = (1 << right_.size()) - 1;
    if (Use(all) && coefficients_.minCoeff() >= 0) return;
    int best = 0;
    double most = 0;
    for (int subset = 1; subset < all; ++subset) {
      if (!Use(subset) || coefficients_.minCoeff() < 0) continue;
      const double explained = coefficients_.dot(right_);
      if (explained > most) most = explained, best = subset;
    }
    Use(best);
  }

  // Solves the normal equations in use; entries of other columns are 0.
  LinearVector Apply(const LinearVector& right) const {
    LinearVector picked(used_.size()), out = LinearVector::Zero(right.size());
    for (size_t i = 0; i < used_.size(); ++i) picked(static_cast<Eigen::Index>(i)) = right(used_[i]);
    const LinearVector solved = solver_.solve(picked);
    for (size_t i = 0; i < used_.size(); ++i) out(used_[i]) = solved(static_cast<Eigen::Index>(i));
    return out;
  }

  void Correct(const LinearVector& right) {
    const LinearVector next = coefficients_ + Apply(right);
    if (next.minCoeff() >= 0) coefficients_ = next;
  }

  const LinearVector& coefficients() const { return coefficients_; }
  bool determined() const { return determined_; }

 private:
  bool Use(int subset) {
    used_.clear();
    for (int i = 0; i < right_.size(); ++i)
      if (subset >> i & 1) used_.push_back(i);
    const auto n = static_cast<Eigen::Index>(used_.size());
    LinearMatrix part(n, n);
    for (Eigen::Index i = 0; i < n; ++i)
      for (Eigen::Index j = 0; j < n; ++j)
        part(i, j) = normal_(used_[static_cast<size_t>(i)], used_[static_cast<size_t>(j)]);
    solver_.compute(part);
    determined_ = n > 0 && (solver_.vectorD().array() > kDependent * part.diagonal().maxCoeff()).all();
    coefficients_ = n > 0 ? Apply(right_) : LinearVector::Zero(right_.size());
    return determined_ && coefficients_.allFinite();
  }

  LinearMatrix normal_;
  LinearVector right_, coefficients_;
  std::vector<int> used_;
  Eigen::LDLT<LinearMatrix> solver_;
  bool determined_ = true;
};

std::vector<BasisValues> EvaluateBasis(const ProjectionBasis& basis, const ProjectionPoints& points,
                                       const ThetaVector& theta) {
  std::vector<BasisValues> values(points.y.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = basis.evaluate(theta.data(), points.u0[i], points.u1[i]);
  return values;
}

std::vector<double> Residuals(const std::vector<BasisValues>& basis, const ProjectionPoints& points,
                              const LinearVector& c) {
  std::vector<double> residuals = points.y;
  for (size_t i = 0; i < residuals.size(); ++i)
    for (Eigen::Index j = 0; j < c.size(); ++j) residuals[i] -= c(j) * basis[i].value[static_cast<size_t>(j)];
  return residuals;
}

// One step of iterative refinement: normal equations alone lose half the digits.
void Refine(const std::vector<BasisValues>& basis, const ProjectionPoints& points, LinearPart* linear) {
  const std::vector<double> r = Residuals(basis, points, linear->coefficients());
  LinearVector right = LinearVector::Zero(linear->coefficients().size());
  for (size_t i = 0; i < r.size(); ++i)
    for (Eigen::Index j = 0; j < right.size(); ++j)
      right(j) += points.weight[i] * r[i] * basis[i].value[static_cast<size_t>(j)];
  linear->Correct(right);
}

// Whether the box stops descent along theta k.
bool Blocked(const ThetaRange& range, double theta, double gradient) {
  return (theta <= range.low && gradient > 0) || (theta >= range.high && gradient < 0);
}

ThetaVector DampedThetaStep(const ProjectionBasis& basis, const ThetaVector& theta, const Projected& at,
                            double damping) {
  ThetaMatrix matrix = at.gauss_newton;
  ThetaVector right = -at.gradient;
  const double most = matrix.diagonal().maxCoeff();
  for (Eigen::Index k = 0; k < theta.size(); ++k) {
    if (Blocked(basis.theta[static_cast<size_t>(k)], theta(k), at.gradient(k))) {
      matrix.row(k).setZero(), matrix.col(k).setZero();
      matrix(k, k) = 1, right(k) = 0;
    } else {
      matrix(k, k) += damping * (matrix(k, k) + 1e-8 * most) + 1e-300;
    }
  }
  return matrix.ldlt().solve(right);
}

// What the quadratic model says that a step gains.
double PredictedThetaGain(const Projected& at, const ThetaVector& step) {
  double gain = 0;
  for (Eigen::Index k = 0; k < step.size(); ++k) {
    double product = 0;
    for (Eigen::Index l = 0; l < step.size(); ++l) product += at.gauss_newton(k, l) * step(l);
    gain -= step(k) * (at.gradient(k) + 0.5 * product);
  }
  return gain;
}

}  // namespace

Projected ProjectAt(const ProjectionBasis& basis, const ProjectionPoints& points, const ThetaVector& theta) {
  const std::vector<BasisValues> values = EvaluateBasis(basis, points, theta);
  LinearPart linear(basis.linear);
  for (size_t i = 0; i < values.size(); ++i) linear.Add(values[i], points.y[i], points.weight[i]);
  linear.Solve();
  Refine(values, points, &linear);

  const LinearVector& c = linear.coefficients();
  const std::vector<double> r = Residuals(values, points, c);
  const Eigen::Index q = theta.size();
  Projected out;
  out.determined = linear.determined();
  std::copy(c.data(), c.data() + c.size(), out.linear.begin());
  out.gradient = ThetaVector::Zero(q);
  out.gauss_newton = ThetaMatrix::Zero(q, q);
  MixedMatrix mixed = MixedMatrix::Zero(c.size(), q);
  for (size_t i = 0; i < values.size(); ++i) {
    const double w = points.weight[i];
    out.objective += 0.5 * w * r[i] * r[i];
    std::array<double, kMostNonlinear> slope = {};
    for (Eigen::Index k = 0; k < q; ++k) {
      for (Eigen::Index j = 0; j < c.size(); ++j)
        slope[static_cast<size_t>(k)] += c(j) * values[i].slope[static_cast<size_t>(j)][static_cast<size_t>(k)];
      const double scaled = w * slope[static_cast<size_t>(k)];
      out.gradient(k) -= scaled * r[i];
      for (Eigen::Index l = 0; l <= k; ++l) out.gauss_newton(k, l) += scaled * slope[static_cast<size_t>(l)];
      for (Eigen::Index j = 0; j < c.size(); ++j) mixed(j, k) += scaled * values[i].value[static_cast<size_t>(j)];
    }
  }
  for (Eigen::Index k = 0; k < q; ++k) {
    const LinearVector projected = linear.Apply(mixed.col(k));
    for (Eigen::Index l = 0; l <= k; ++l) {
      out.gauss_newton(k, l) -= projected.dot(mixed.col(l));
      out.gauss_newton(l, k) = out.gauss_newton(k, l);
    }
  }
  return out;
}

ProjectionResult FitProjection(const ProjectionBasis& basis, const ProjectionPoints& points, const ThetaVector& start,
                               double least_gain) {
  ProjectionResult out{start, ProjectAt(basis, points, start)};
  double damping = kFirstThetaDamping;
  for (int evaluation = 1; evaluation < kMostThetaEvaluations && damping < kMostThetaDamping; ++evaluation) {
    const ThetaVector step = DampedThetaStep(basis, out.theta, out.at, damping);
    ThetaVector next = out.theta + step;
    for (Eigen::Index k = 0; k < next.size(); ++k)
      next(k) = std::clamp(next(k), basis.theta[static_cast<size_t>(k)].low, basis.theta[static_cast<size_t>(k)].high);
    const ThetaVector taken = next - out.theta;
    const double predicted = PredictedThetaGain(out.at, taken);
    if (std::abs(predicted) <= least_gain * out.at.objective || taken.isZero(0)) break;
    const Projected there = ProjectAt(basis, points, next);
    if (!(there.objective < out.at.objective)) {
      damping *= kThetaDampingUp;
      continue;
    }
    damping = std::max(kLeastThetaDamping, damping * kThetaDampingDown);
    out = {next, there};
  }
  return out;
}

std::vector<ThetaVector> ThetaGrid(const ProjectionBasis& basis) {
  std::vector<ThetaVector> grid{ThetaVector(static_cast<Eigen::Index>(basis.theta.size()))};
  for (size_t k = 0; k < basis.theta.size(); ++k) {
    const ThetaRange& range = basis.theta[k];
    std::vector<ThetaVector> next;
    for (const ThetaVector& start : grid) {
      for (int s = 0; s < range.starts; ++s) {
        next.push_back(start);
        const double share = range.starts > 1 ? static_cast<double>(s) / (range.starts - 1) : 0.5;
        next.back()(static_cast<Eigen::Index>(k)) = range.first_start + share * (range.last_start - range.first_start);
      }
    }
    grid = std::move(next);
  }
  return grid;
}

}  // namespace allometry::analysis
