#include "analysis/projection_basis.h"

#include <algorithm>
#include <cmath>

namespace allometry::analysis {
namespace {

BasisValues ParametersTokens(const double* theta, double u0, double u1) {
  const double alpha = std::exp(theta[0]), beta = std::exp(theta[1]);
  BasisValues out;
  out.value = {1, std::exp(-alpha * u0), std::exp(-beta * u1)};
  out.slope[1][0] = -alpha * u0 * out.value[1];
  out.slope[2][1] = -beta * u1 * out.value[2];
  return out;
}

BasisValues Tied(const double* theta, double u0, double u1) {
  const double alpha = std::exp(theta[0]);
  BasisValues out;
  out.value = {1, std::exp(-alpha * u0), std::exp(-alpha * u1)};
  out.slope[1][0] = -alpha * u0 * out.value[1];
  out.slope[2][0] = -alpha * u1 * out.value[2];
  return out;
}

BasisValues Compute(const double* theta, double u0, double) {
  const double alpha = std::exp(theta[0]);
  BasisValues out;
  out.value = {1, std::exp(-alpha * u0)};
  out.slope[1][0] = -alpha * u0 * out.value[1];
  return out;
}

// theta: c0, c1, ln d - centre, ln f. (x/d)^(1/f) is e^z; ln(1 + e^z) and its derivative e^z / (1 + e^z).
BasisValues Broken(const double* theta, double u0, double) {
  const double c0 = theta[0], c1 = theta[1], f = std::exp(theta[3]), z = (u0 - theta[2]) / f;
  const double softplus = std::max(z, 0.0) + std::log1p(std::exp(-std::abs(z)));
  const double sigmoid = z > 0 ? 1 / (1 + std::exp(-z)) : std::exp(z) / (1 + std::exp(z));
  BasisValues out;
  out.value = {1, std::exp(-c0 * u0 - c1 * f * softplus)};
  out.slope[1] = {-u0 * out.value[1], -f * softplus * out.value[1], c1 * sigmoid * out.value[1],
                  -c1 * f * (softplus - z * sigmoid) * out.value[1]};
  return out;
}

// theta: ln k, L0 - centre.
BasisValues Sigmoid(const double* theta, double u0, double) {
  const double k = std::exp(theta[0]), z = k * (u0 - theta[1]);
  const double s = z > 0 ? std::exp(-z) / (1 + std::exp(-z)) : 1 / (1 + std::exp(z));
  BasisValues out;
  out.value = {1, s};
  out.slope[1] = {-s * (1 - s) * z, s * (1 - s) * k};
  return out;
}

BasisValues Exponential(const double* theta, double u0, double) {
  const double gamma = std::exp(theta[0]);
  BasisValues out;
  out.value = {1, -std::exp(-gamma * u0)};
  out.slope[1][0] = -gamma * u0 * out.value[1];
  return out;
}

ThetaRange Logarithmic(double low, double high, double first, double last, int starts) {
  return {std::log(low), std::log(high), std::log(first), std::log(last), starts};
}

// u runs from `least` to `most` over the points.
ProjectionBasis BasisOf(LawForm form, double least, double most) {
  const ThetaRange exponent = Logarithmic(0.01, 3, 0.05, 2, 6);
  const double width = most - least;
  switch (form) {
    case LawForm::kParametersTokens:
      return {3, {exponent, exponent}, ParametersTokens};
    case LawForm::kTied:
      return {3, {exponent}, Tied};
    case LawForm::kCompute:
      return {2, {exponent}, Compute};
    case LawForm::kBroken:
      return {2,
              {{-1, 3, 0.05, 0.8, 4},
               {-3, 3, -0.5, 0.5, 4},
               {least, most, least + width / 6, most - width / 6, 4},
               Logarithmic(0.02, 2, 0.1, 1, 2)},
              Broken};
    case LawForm::kSigmoid:
      return {2, {Logarithmic(0.05, 100, 0.5, 10, 5), {least - width, most + width, least, most, 5}}, Sigmoid};
    case LawForm::kExponential:
      return {2, {Logarithmic(0.01, 20, 0.1, 5, 6)}, Exponential};
  }
  return {};
}

// Relative errors, so that runs of high loss do not outweigh the others; kTied as it was published, and scores,
// plainly.
bool IsRelative(LawForm form) { return PredictsLoss(form) && form != LawForm::kTied; }

double MeanOf(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value / static_cast<double>(values.size());
  return sum;
}

}  // namespace

LawProjection::LawProjection(LawForm form, std::span<const LawPoint> points) : form_(form) {
  for (const LawPoint& point : points) {
    points_.u0.push_back(PredictsLoss(form) ? std::log(point.x) : point.x);
    points_.u1.push_back(HasTokens(form) ? std::log(point.tokens) : 0);
    points_.y.push_back(point.y);
    points_.weight.push_back(IsRelative(form) ? 1 / (point.y * point.y) : 1);
  }
  centre0_ = MeanOf(points_.u0), centre1_ = MeanOf(points_.u1);
  for (double& u : points_.u0) u -= centre0_;
  for (double& u : points_.u1) u -= centre1_;
  basis_ = BasisOf(form, std::ranges::min(points_.u0), std::ranges::max(points_.u0));
}

std::vector<double> LawProjection::Outer(const ThetaVector& t, const std::array<double, kMostLinear>& c) const {
  const auto exp = [&](int k) { return std::exp(t(k)); };
  const auto uncentred = [&](double coefficient, double exponent, double centre) {
    return coefficient * std::exp(exponent * centre);
  };
  switch (form_) {
    case LawForm::kParametersTokens:
      return {c[0], uncentred(c[1], exp(0), centre0_), uncentred(c[2], exp(1), centre1_), exp(0), exp(1)};
    case LawForm::kTied:
      return {c[0], uncentred(c[1], exp(0), centre0_), uncentred(c[2], exp(0), centre1_), exp(0)};
    case LawForm::kCompute:
    case LawForm::kExponential:
      return {c[0], uncentred(c[1], exp(0), centre0_), exp(0)};
    case LawForm::kBroken:
      return {c[0], uncentred(c[1], t(0), centre0_), t(0), t(1), std::exp(t(2) + centre0_), exp(3)};
    case LawForm::kSigmoid:
      return {c[0], c[1], exp(0), t(1) + centre0_};
  }
  return {};
}

ThetaVector LawProjection::Theta(std::span<const double> p) const {
  ThetaVector theta(static_cast<Eigen::Index>(basis_.theta.size()));
  switch (form_) {
    case LawForm::kParametersTokens:
      theta << std::log(p[3]), std::log(p[4]);
      break;
    case LawForm::kTied:
      theta << std::log(p[3]);
      break;
    case LawForm::kCompute:
    case LawForm::kExponential:
      theta << std::log(p[2]);
      break;
    case LawForm::kBroken:
      theta << p[2], p[3], std::log(p[4]) - centre0_, std::log(p[5]);
      break;
    case LawForm::kSigmoid:
      theta << std::log(p[2]), p[3] - centre0_;
      break;
  }
  for (Eigen::Index k = 0; k < theta.size(); ++k) {
    const ThetaRange& range = basis_.theta[static_cast<size_t>(k)];
    theta(k) = std::isnan(theta(k)) ? range.low : std::clamp(theta(k), range.low, range.high);
  }
  return theta;
}

const std::string& LawProjection::ThetaName(int k) const {
  return LawParameterNames(form_)[static_cast<size_t>(basis_.linear + k)];
}

const std::string& LawProjection::LinearName(int j) const { return LawParameterNames(form_)[static_cast<size_t>(j)]; }

}  // namespace allometry::analysis
