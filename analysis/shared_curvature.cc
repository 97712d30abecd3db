#include <Eigen/Dense>
#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include "analysis/line.h"
#include "analysis/mean.h"

namespace allometry::analysis {
namespace {

constexpr int kColumns = 5;  // level and slope of each curve, and the bend they share

struct Means {
  std::vector<double> x, y;
};

Means MeansOf(std::span<const SizeSamples> sizes) {
  Means means;
  for (const SizeSamples& size : sizes) {
    means.x.push_back(Mean(size.x));
    means.y.push_back(Mean(size.y));
  }
  return means;
}

struct Fit {
  double first = 0, second = 0, bend = 0;
  bool determined = false;
};

void AddRows(const Means& means, int curve, double at, int first_row, Eigen::MatrixXd* design, Eigen::VectorXd* y) {
  for (size_t i = 0; i < means.x.size(); ++i) {
    const Eigen::Index row = first_row + static_cast<Eigen::Index>(i);
    const double u = means.x[i] - at;
    (*design)(row, 2 * curve) = 1;
    (*design)(row, 2 * curve + 1) = u;
    (*design)(row, kColumns - 1) = u * u;
    (*y)(row) = means.y[i];
  }
}

Fit FitMeans(const Means& first, const Means& second, double at) {
  const int rows = static_cast<int>(first.x.size() + second.x.size());
  Eigen::MatrixXd design = Eigen::MatrixXd::Zero(rows, kColumns);
  Eigen::VectorXd y(rows);
  AddRows(first, 0, at, 0, &design, &y);
  AddRows(second, 1, at, static_cast<int>(first.x.size()), &design, &y);
  const auto solver = design.colPivHouseholderQr();
  const Eigen::VectorXd c = solver.solve(y);
  return {c(1), c(3), c(4), solver.rank() == kColumns};
}

// Pooled within-size covariance and its degrees of freedom.
struct SeedCovariance {
  double xx = 0, xy = 0, yy = 0, degrees = 0;
};

SeedCovariance CovarianceOf(std::span<const SizeSamples> sizes) {
  SeedCovariance c;
  for (const SizeSamples& size : sizes) {
    const double mean_x = Mean(size.x), mean_y = Mean(size.y);
    for (size_t s = 0; s < size.x.size(); ++s) {
      const double dx = size.x[s] - mean_x, dy = size.y[s] - mean_y;
      c.xx += dx * dx, c.xy += dx * dy, c.yy += dy * dy;
    }
    c.degrees += static_cast<double>(size.x.size()) - 1;
  }
  if (c.degrees > 0) c.xx /= c.degrees, c.xy /= c.degrees, c.yy /= c.degrees;
  return c;
}

// Variance of first - second that the seeds of one curve bring: sum of g' S g / n with the gradient g of the difference
// in each size's means, by central differences (the fit is smooth, and linear in y).
double VarianceFrom(std::span<const SizeSamples> sizes, Means* moved, const Means& first, const Means& second,
                    double at, const SeedCovariance& c) {
  const auto [low, high] = std::ranges::minmax(moved->x);
  const double step = 1e-5 * (high - low);
  const auto slope_of = [&](double* where) {
    const double kept = *where;
    const auto difference = [&](double value) {
      *where = value;
      const Fit fit = FitMeans(first, second, at);
      return fit.first - fit.second;
    };
    const double derivative = (difference(kept + step) - difference(kept - step)) / (2 * step);
    *where = kept;
    return derivative;
  };
  double variance = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double gx = c.xx > 0 ? slope_of(&moved->x[i]) : 0, gy = slope_of(&moved->y[i]);
    variance += (gx * gx * c.xx + 2 * gx * gy * c.xy + gy * gy * c.yy) / static_cast<double>(sizes[i].y.size());
  }
  return variance;
}

void AddInterval(double difference, double v1, double d1, double v2, double d2, double confidence,
                 SharedCurvature* out) {
  double denominator = 0;
  if (v1 > 0) denominator += v1 * v1 / d1;
  if (v2 > 0) denominator += v2 * v2 / d2;
  if (denominator <= 0) return;
  const double variance = v1 + v2, degrees = variance * variance / denominator;
  const boost::math::students_t t(degrees);
  const double half = boost::math::quantile(t, 0.5 + confidence / 2) * std::sqrt(variance);
  out->difference_interval = Interval{difference - half, difference + half, degrees};
  out->p_value = 2 * boost::math::cdf(boost::math::complement(t, std::abs(difference) / std::sqrt(variance)));
}

// Middle of the overlap of the two ranges, or why there is none.
bool MiddleOfOverlap(const Means& first, const Means& second, SharedCurvature* out) {
  const double low = std::max(std::ranges::min(first.x), std::ranges::min(second.x));
  const double high = std::min(std::ranges::max(first.x), std::ranges::max(second.x));
  if (low >= high) out->refused = "the ranges do not overlap";
  out->at = (low + high) / 2;
  return low < high;
}

}  // namespace

SharedCurvature FitSharedCurvature(std::span<const SizeSamples> first_sizes, std::span<const SizeSamples> second_sizes,
                                   double confidence) {
  SharedCurvature out;
  if (first_sizes.size() < 2 || second_sizes.size() < 2 || first_sizes.size() + second_sizes.size() < kColumns) {
    out.refused = "a shared curvature needs two sizes of each and five in all";
    return out;
  }
  Means first = MeansOf(first_sizes), second = MeansOf(second_sizes);
  if (!MiddleOfOverlap(first, second, &out)) return out;
  const Fit fit = FitMeans(first, second, out.at);
  if (!fit.determined) {
    out.refused = "the sizes do not determine a shared curvature";
    return out;
  }
  out.first = fit.first, out.second = fit.second, out.bend = fit.bend;
  const SeedCovariance c1 = CovarianceOf(first_sizes), c2 = CovarianceOf(second_sizes);
  if (c1.degrees > 0 && c2.degrees > 0) {
    const double v1 = VarianceFrom(first_sizes, &first, first, second, out.at, c1);
    const double v2 = VarianceFrom(second_sizes, &second, first, second, out.at, c2);
    AddInterval(fit.first - fit.second, v1, c1.degrees, v2, c2.degrees, confidence, &out);
  }
  return out;
}

}  // namespace allometry::analysis
