#include "analysis/size_curve.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "analysis/mean.h"

namespace allometry::analysis {
namespace {

using Polynomial = std::vector<double>;  // lowest power first

double ValueAt(const Polynomial& p, double u) {
  double value = 0;
  for (auto c = p.rbegin(); c != p.rend(); ++c) value = value * u + *c;
  return value;
}

Polynomial Product(const Polynomial& a, const Polynomial& b) {
  Polynomial out(a.size() + b.size() - 1, 0.0);
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) out[i + j] += a[i] * b[j];
  }
  return out;
}

void AddTimes(double factor, const Polynomial& p, Polynomial* sum) {
  if (sum->size() < p.size()) sum->resize(p.size(), 0.0);
  for (size_t i = 0; i < p.size(); ++i) (*sum)[i] += factor * p[i];
}

Polynomial ToPolynomial(const Eigen::VectorXd& v) { return {v.data(), v.data() + v.size()}; }

// Sums of squared deviations of the seeds of one size, or of all sizes.
struct Deviations {
  double xx = 0, xy = 0, yy = 0;
  double degrees = 0;
};

Deviations DeviationsOf(const SizeSamples& size) {
  const double mean_x = Mean(size.x), mean_y = Mean(size.y);
  Deviations d{.degrees = static_cast<double>(size.y.size()) - 1};
  for (size_t s = 0; s < size.y.size(); ++s) {
    d.xx += (size.x[s] - mean_x) * (size.x[s] - mean_x);
    d.xy += (size.x[s] - mean_x) * (size.y[s] - mean_y);
    d.yy += (size.y[s] - mean_y) * (size.y[s] - mean_y);
  }
  return d;
}

Deviations DeviationsOf(std::span<const SizeSamples> sizes) {
  Deviations all;
  for (const SizeSamples& size : sizes) {
    const Deviations d = DeviationsOf(size);
    all.xx += d.xx;
    all.xy += d.xy;
    all.yy += d.yy;
    all.degrees += d.degrees;
  }
  return all;
}

// The fit in u, and how its value at u moves with each size's mean y and mean x: polynomials in u.
struct FittedPolynomial {
  Polynomial value;
  std::vector<Polynomial> by_y, by_x;  // one a size
};

// From X'X beta = X'y: d beta / d y_i = (X'X)^-1 phi_i and d beta / d u_i = (X'X)^-1 (phi'_i r_i - phi_i phi'_i .
// beta), with phi_i the powers of u_i, phi'_i their derivatives and r_i the residual.
std::optional<FittedPolynomial> FitInU(const std::vector<double>& u, const std::vector<double>& y, int degree) {
  const Eigen::Index k = static_cast<Eigen::Index>(u.size());
  Eigen::MatrixXd design(k, degree + 1), derivative = Eigen::MatrixXd::Zero(k, degree + 1);
  for (Eigen::Index i = 0; i < k; ++i) {
    for (int power = 0; power <= degree; ++power) {
      design(i, power) = std::pow(u[static_cast<size_t>(i)], power);
      if (power > 0) derivative(i, power) = power * std::pow(u[static_cast<size_t>(i)], power - 1);
    }
  }
  const auto qr = design.colPivHouseholderQr();
  if (k < degree + 1 || qr.rank() < degree + 1) return std::nullopt;
  const Eigen::Map<const Eigen::VectorXd> ys(y.data(), k);
  const Eigen::VectorXd beta = qr.solve(ys);
  const Eigen::MatrixXd inverse = (design.transpose() * design).inverse();
  FittedPolynomial fit{ToPolynomial(beta), {}, {}};
  for (Eigen::Index i = 0; i < k; ++i) {
    const Eigen::VectorXd phi = design.row(i).transpose(), slope = derivative.row(i).transpose();
    const double residual = ys(i) - phi.dot(beta);
    fit.by_y.push_back(ToPolynomial(inverse * phi));
    fit.by_x.push_back(ToPolynomial(inverse * (slope * residual - phi * slope.dot(beta))));
  }
  return fit;
}

struct VariancePolynomials {
  Polynomial variance, squares;
  double degrees = 0;
};

VariancePolynomials WelchPolynomials(std::span<const SizeSamples> sizes, const FittedPolynomial& fit) {
  VariancePolynomials out;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Deviations d = DeviationsOf(sizes[i]);
    const double n = static_cast<double>(sizes[i].y.size());
    Polynomial part;
    AddTimes(d.yy / d.degrees / n, Product(fit.by_y[i], fit.by_y[i]), &part);
    AddTimes(1, part, &out.variance);
    AddTimes(1 / d.degrees, Product(part, part), &out.squares);
  }
  return out;
}

// The delta method with the pooled covariance of (x, y); without variance of x the pooled form.
VariancePolynomials PooledPolynomials(std::span<const SizeSamples> sizes, const FittedPolynomial& fit, double scale) {
  const Deviations d = DeviationsOf(sizes);
  VariancePolynomials out{.degrees = d.degrees};
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double each = 1 / (d.degrees * static_cast<double>(sizes[i].y.size()));
    AddTimes(d.yy * each, Product(fit.by_y[i], fit.by_y[i]), &out.variance);
    AddTimes(2 * d.xy * each / scale, Product(fit.by_x[i], fit.by_y[i]), &out.variance);
    AddTimes(d.xx * each / (scale * scale), Product(fit.by_x[i], fit.by_x[i]), &out.variance);
  }
  return out;
}

// s^2 (1/k + u^2 / Sxx), with s^2 as in the line interval; u has unit sum of squares.
std::optional<VariancePolynomials> SizesPolynomials(std::span<const SizeSamples> sizes, int degree, double scale) {
  const SlopeEstimate line = EstimateSlope(sizes, 0.95);
  if (degree != 1 || !line.line_interval) return std::nullopt;
  const double residual_variance = line.line_variance * scale * scale;
  return VariancePolynomials{{residual_variance / static_cast<double>(sizes.size()), 0, residual_variance},
                             {},
                             line.line_interval->degrees_of_freedom};
}

bool HasOwnVariances(std::span<const SizeSamples> sizes) {
  return std::ranges::all_of(sizes, [](const SizeSamples& s) { return s.y.size() >= 3; }) &&
         DeviationsOf(sizes).xx == 0;
}

std::optional<VariancePolynomials> PolynomialsOf(std::span<const SizeSamples> sizes, const FittedPolynomial& fit,
                                                 int degree, double scale, VarianceBasis basis) {
  if (basis == VarianceBasis::kSizes) return SizesPolynomials(sizes, degree, scale);
  if (basis != VarianceBasis::kSeeds || DeviationsOf(sizes).degrees < 1) return std::nullopt;
  if (HasOwnVariances(sizes)) return WelchPolynomials(sizes, fit);
  return PooledPolynomials(sizes, fit, scale);
}

}  // namespace

const char* VarianceBasisName(VarianceBasis basis) {
  constexpr const char* kNames[] = {"seeds", "sizes", "runs"};
  return kNames[static_cast<size_t>(basis)];
}

CurveValue Minus(const CurveValue& first, const CurveValue& second) {
  CurveValue out{first.value - second.value, first.variance + second.variance, 0};
  double denominator = 0;
  for (const CurveValue& v : {first, second}) denominator += v.variance > 0 ? v.variance * v.variance / v.degrees : 0;
  out.degrees = denominator > 0 ? out.variance * out.variance / denominator : 0;
  return out;
}

std::optional<SizeCurve> SizeCurve::Fit(std::span<const SizeSamples> sizes, int degree, VarianceBasis basis) {
  if (sizes.empty()) return std::nullopt;
  std::vector<double> x, y;
  for (const SizeSamples& size : sizes) {
    x.push_back(Mean(size.x));
    y.push_back(Mean(size.y));
  }
  SizeCurve curve;
  curve.centre_ = Mean(x);
  double squares = 0;
  for (double& value : x) {
    value -= curve.centre_;
    squares += value * value;
  }
  if (!(squares > 0)) return std::nullopt;
  curve.scale_ = std::sqrt(squares);
  for (double& value : x) value /= curve.scale_;
  const auto fit = FitInU(x, y, degree);
  if (!fit) return std::nullopt;
  auto variance = PolynomialsOf(sizes, *fit, degree, curve.scale_, basis);
  if (!variance) return std::nullopt;
  curve.value_ = fit->value;
  curve.variance_ = std::move(variance->variance);
  curve.squares_ = std::move(variance->squares);
  curve.degrees_ = variance->degrees;
  return curve;
}

CurveValue SizeCurve::At(double x) const {
  const double u = (x - centre_) / scale_;
  CurveValue out{ValueAt(value_, u), std::max(0.0, ValueAt(variance_, u)), degrees_};
  if (!squares_.empty()) {
    const double squares = ValueAt(squares_, u);
    out.degrees = squares > 0 ? out.variance * out.variance / squares : 0;
  }
  return out;
}

}  // namespace allometry::analysis
