#include "analysis/isoflop.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <set>

namespace allometry::analysis {
namespace {

constexpr Eigen::Index kParabola = 3;

double Flops(const LawPoint& point) { return 6 * point.x * point.tokens; }

// Values of one curve, u = ln N from the mean.
struct Curve {
  Eigen::VectorXd u, loss;
  double centre = 0, log_flops = 0;
  size_t sizes = 0;
};

Curve CurveOf(std::span<const LawPoint> points) {
  Curve curve;
  const auto n = static_cast<Eigen::Index>(points.size());
  curve.u.resize(n), curve.loss.resize(n);
  std::set<double> sizes;
  for (Eigen::Index i = 0; i < n; ++i) {
    const LawPoint& point = points[static_cast<size_t>(i)];
    curve.u(i) = std::log(point.x), curve.loss(i) = point.y;
    curve.log_flops += std::log(Flops(point)) / static_cast<double>(n);
    sizes.insert(point.x);
  }
  curve.centre = curve.u.mean();
  curve.u.array() -= curve.centre;
  curve.sizes = sizes.size();
  return curve;
}

IsoFlopCurve FitCurve(std::span<const LawPoint> points) {
  const Curve curve = CurveOf(points);
  const auto n = static_cast<Eigen::Index>(points.size());
  IsoFlopCurve out;
  out.flops = std::exp(curve.log_flops), out.points = points.size();
  if (curve.sizes < static_cast<size_t>(kParabola)) {
    out.refused = "a parabola needs three sizes, and there are " + std::to_string(curve.sizes);
    return out;
  }
  Eigen::MatrixXd design(n, kParabola);
  design << Eigen::VectorXd::Ones(n), curve.u, curve.u.array().square().matrix();
  const Eigen::VectorXd c = design.colPivHouseholderQr().solve(curve.loss);
  out.curvature = c(2);
  const double at = -c(1) / (2 * c(2));
  if (!(c(2) > 0)) {
    out.refused = "the loss does not curve upward in ln N";
  } else if (at < curve.u.minCoeff() || at > curve.u.maxCoeff()) {
    out.refused = "the minimum lies outside the sizes";
  } else {
    out.parameters = std::exp(at + curve.centre);
    out.tokens = out.flops / 6 / *out.parameters;
    out.loss = c(0) + c(1) * at + c(2) * at * at;
    if (n > kParabola) {
      const Eigen::Vector3d gradient(0, -1 / (2 * c(2)), c(1) / (2 * c(2) * c(2)));
      const double variance = (curve.loss - design * c).squaredNorm() / static_cast<double>(n - kParabola);
      const Eigen::Matrix3d normal = design.transpose() * design;
      out.log_standard_error = std::sqrt(variance * gradient.dot(normal.ldlt().solve(gradient)));
    }
  }
  return out;
}

void AddExponent(IsoFlopResult* result) {
  std::vector<double> x, y;
  for (const IsoFlopCurve& curve : result->curves)
    if (curve.parameters) x.push_back(std::log(curve.flops)), y.push_back(std::log(*curve.parameters));
  if (x.size() < 2) return;
  const auto n = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0, squares = 0;
  for (size_t i = 0; i < x.size(); ++i) mean_x += x[i] / n, mean_y += y[i] / n;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  result->exponent = xy / xx;
  result->intercept = mean_y - *result->exponent * mean_x;
  if (x.size() < 3) return;
  for (size_t i = 0; i < x.size(); ++i) squares += std::pow(y[i] - *result->intercept - *result->exponent * x[i], 2);
  result->exponent_standard_error = std::sqrt(squares / (n - 2) / xx);
}

}  // namespace

common::Result<IsoFlopResult> FitIsoFlop(std::span<const LawPoint> points, double tolerance) {
  if (!(tolerance > 1)) return common::InvalidArgument("the tolerance of a curve's compute must be above 1");
  std::vector<LawPoint> sorted(points.begin(), points.end());
  for (const LawPoint& point : sorted)
    if (!(std::isfinite(Flops(point)) && point.x > 0 && point.tokens > 0 && std::isfinite(point.y) && point.y > 0))
      return common::InvalidArgument("sizes, tokens and losses must be positive and finite");
  std::ranges::stable_sort(sorted, {}, Flops);
  IsoFlopResult result;
  for (size_t first = 0, next; first < sorted.size(); first = next) {
    for (next = first; next < sorted.size() && Flops(sorted[next]) <= tolerance * Flops(sorted[first]);) ++next;
    result.curves.push_back(FitCurve(std::span(sorted).subspan(first, next - first)));
  }
  AddExponent(&result);
  return result;
}

}  // namespace allometry::analysis
