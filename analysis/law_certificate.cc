#include "analysis/law_certificate.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <cstdio>

namespace allometry::analysis {
namespace {

constexpr double kMostScaledGradient = 1e-3;  // Bates and Watts's own tolerance
constexpr double kMostCondition = 1e6;
constexpr double kAtBest = 1e-6;      // of the objective
constexpr double kMostSpread = 1e-2;  // of a parameter
constexpr int kFewestAtBest = 3;
constexpr double kDidNotMove = 1e-9;
constexpr double kMostlyOutliers = 0.5;

std::string Text(const char* format, double a, double b = 0) {
  char buffer[200];
  std::snprintf(buffer, sizeof buffer, format, a, b);
  return buffer;
}

double LargestRelativeDifference(std::span<const double> a, std::span<const double> b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(a[i] - b[i]) / std::max({std::abs(a[i]), std::abs(b[i]), 1e-300}));
  return largest;
}

// Columns scaled to length 1.
Eigen::MatrixXd Scaled(const Eigen::MatrixXd& matrix) {
  const Eigen::VectorXd length = matrix.diagonal().cwiseMax(1e-300).cwiseSqrt();
  return length.cwiseInverse().asDiagonal() * matrix * length.cwiseInverse().asDiagonal();
}

void AddGeometry(const LawSolver& solver, const LocalGeometry& at, Certificate* out) {
  const auto p = static_cast<double>(at.gradient.size()), n = static_cast<double>(solver.points());
  if (at.gradient.empty()) {
    out->failures.push_back("every parameter is at a bound");
    return;
  }
  const auto size = static_cast<Eigen::Index>(at.gradient.size());
  const Eigen::Map<const Eigen::MatrixXd> gauss_newton(at.gauss_newton.data(), size, size);
  const Eigen::Map<const Eigen::VectorXd> unscaled(at.gradient.data(), size);
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(Scaled(gauss_newton));
  const double least = eigen.eigenvalues().minCoeff(), most = eigen.eigenvalues().maxCoeff();
  out->condition = most / std::max(least, most * 1e-17);
  const Eigen::VectorXd length = gauss_newton.diagonal().cwiseMax(1e-300).cwiseSqrt();
  const Eigen::VectorXd gradient = eigen.eigenvectors().transpose() * unscaled.cwiseQuotient(length);
  // Directions that the data does not see at all belong to the condition number.
  double tangent = 0;
  for (Eigen::Index i = 0; i < gradient.size(); ++i)
    tangent += gradient(i) * gradient(i) / std::max(eigen.eigenvalues()(i), most * 1e-14);
  const double orthogonal = std::max(2 * (at.objective + at.floor) - tangent, 2 * at.floor);
  out->scaled_gradient = std::sqrt(tangent / p / (orthogonal / std::max(1.0, n - p)));
  if (!(out->scaled_gradient <= kMostScaledGradient))
    out->failures.push_back(Text("not a minimum: scaled gradient %.2g, and at most %.0e is accepted",
                                 out->scaled_gradient, kMostScaledGradient));
  if (!(out->condition <= kMostCondition))
    out->failures.push_back(
        Text("a flat valley: the data does not tell the parameters apart, condition %.2g", out->condition));
}

void AddStarts(std::span<const double> parameters, std::span<const StartResult> starts, double floor,
               Certificate* out) {
  out->starts = static_cast<int>(starts.size());
  if (starts.empty()) return;
  const double best = std::ranges::min(starts, {}, &StartResult::objective).objective;
  for (const StartResult& start : starts) {
    if (!(start.objective <= best + kAtBest * best + floor)) continue;
    ++out->starts_at_best;
    out->spread = std::max(out->spread, LargestRelativeDifference(start.parameters, parameters));
  }
  if (out->starts_at_best < std::min(kFewestAtBest, out->starts))
    out->failures.push_back(
        Text("only %.0f of %.0f starts reach the lowest objective", out->starts_at_best, out->starts));
  if (out->spread > kMostSpread)
    out->failures.push_back(
        Text("starts with the same objective differ in a parameter by %.2g of its value", out->spread));
}

}  // namespace

Certificate Certify(const LawSolver& solver, std::span<const double> parameters, std::span<const double> start,
                    std::span<const StartResult> starts) {
  Certificate out;
  const LocalGeometry at = solver.Inspect(parameters);
  AddGeometry(solver, at, &out);
  AddStarts(parameters, starts, at.floor, &out);
  if (!start.empty()) {
    out.distance_from_start = LargestRelativeDifference(parameters, start);
    if (out.distance_from_start <= kDidNotMove) out.failures.push_back("the optimiser returned its start");
  }
  out.active_bounds = at.active_bounds;
  for (const std::string& bound : at.active_bounds) out.failures.push_back("an active bound: " + bound);
  out.outlier_share = at.outlier_share;
  if (at.outlier_share && *at.outlier_share > kMostlyOutliers)
    out.notes.push_back(Text("%.0f %% of the points lie beyond Huber's delta: nearly least absolute deviations",
                             100 * *at.outlier_share));
  return out;
}

}  // namespace allometry::analysis
