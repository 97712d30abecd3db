#include "analysis/line.h"

#include <Eigen/Dense>
#include <algorithm>
#include <boost/math/distributions/fisher_f.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include "analysis/mean.h"

namespace allometry::analysis {
namespace {

constexpr double kCurvedBelow = 0.05;
constexpr double kUnequalSdRatio = 3.0;
constexpr size_t kQuadraticFromSizes = 6;
// Differences this small against the values themselves are rounding, not variance.
constexpr double kRelativeZero = 1e-12;
// Boost would compute in long doubles, twice as long, for digits that no interval shows.
using InDoubles = boost::math::policies::policy<boost::math::policies::promote_double<false>>;
using StudentsT = boost::math::students_t_distribution<double, InDoubles>;

// Sum of products of deviations of two equally long samples.
double CrossDeviation(const std::vector<double>& a, const std::vector<double>& b) {
  const double mean_a = Mean(a), mean_b = Mean(b);
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - mean_a) * (b[i] - mean_b);
  return sum;
}

// The line through the size means, with what its intervals need.
struct Line {
  std::vector<double> x, y, n;  // size means and seeds
  std::vector<double> a;        // (x_i - mean x) / Sxx
  std::vector<double> residuals;
  double sxx = 0, slope = 0;
  double seeds_degrees = 0;  // sum (n_i - 1)
};

Line FitLine(std::span<const SizeSamples> sizes) {
  Line line;
  for (const SizeSamples& s : sizes) {
    line.x.push_back(Mean(s.x));
    line.y.push_back(Mean(s.y));
    line.n.push_back(static_cast<double>(s.y.size()));
    line.seeds_degrees += line.n.back() - 1;
  }
  const double mean_x = Mean(line.x), mean_y = Mean(line.y);
  line.sxx = CrossDeviation(line.x, line.x);
  if (line.sxx > 0) line.slope = CrossDeviation(line.x, line.y) / line.sxx;
  for (size_t i = 0; i < line.x.size(); ++i) {
    line.a.push_back((line.x[i] - mean_x) / line.sxx);
    line.residuals.push_back(line.y[i] - mean_y - line.slope * (line.x[i] - mean_x));
  }
  return line;
}

// Pooled within-size covariance of (x, y): entries xx, xy, yy.
struct Covariance {
  double xx = 0, xy = 0, yy = 0;
};

Covariance PooledCovariance(std::span<const SizeSamples> sizes, double degrees) {
  Covariance c;
  for (const SizeSamples& s : sizes) {
    c.xx += CrossDeviation(s.x, s.x);
    c.xy += CrossDeviation(s.x, s.y);
    c.yy += CrossDeviation(s.y, s.y);
  }
  return {c.xx / degrees, c.xy / degrees, c.yy / degrees};
}

bool XVaries(std::span<const SizeSamples> sizes) {
  return std::ranges::any_of(
      sizes, [](const SizeSamples& s) { return std::ranges::adjacent_find(s.x, std::not_equal_to<>()) != s.x.end(); });
}

struct Variance {
  double value = 0, degrees = 0;
};

// Of a sum of independent estimates, with Satterthwaite's degrees of freedom. A term of zero brings none.
Variance AddVariances(const Variance& a, const Variance& b) {
  const double sum = a.value + b.value;
  double denominator = 0;
  for (const Variance& v : {a, b}) denominator += v.value > 0 ? v.value * v.value / v.degrees : 0;
  return {sum, denominator > 0 ? sum * sum / denominator : 0};
}

double TwoSidedP(double estimate, const Variance& variance) {
  const double t = std::abs(estimate) / std::sqrt(variance.value);
  return 2 * boost::math::cdf(boost::math::complement(StudentsT(variance.degrees), t));
}

// w_i = a_i^2 s_i^2.
std::vector<double> WelchTerms(std::span<const SizeSamples> sizes, const Line& line) {
  std::vector<double> terms;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double v = CrossDeviation(sizes[i].y, sizes[i].y) / (line.n[i] - 1);
    terms.push_back(line.a[i] * line.a[i] * v);
  }
  return terms;
}

// g_i = (r_i - b u_i, u_i) / Sxx with u_i = x_i - mean x; without variance of x this is the pooled form.
std::vector<double> PooledTerms(std::span<const SizeSamples> sizes, const Line& line) {
  const Covariance s = PooledCovariance(sizes, line.seeds_degrees);
  std::vector<double> terms;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double gx = line.residuals[i] / line.sxx - line.slope * line.a[i], gy = line.a[i];
    terms.push_back(gx * gx * s.xx + 2 * gx * gy * s.xy + gy * gy * s.yy);
  }
  return terms;
}

// Sum of w_i / n_i; with v_i of each size's own, Satterthwaite's degrees of freedom.
Variance SumOf(const std::vector<double>& terms, const Line& line, bool welch) {
  double sum = 0, squares = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    const double term = terms[i] / line.n[i];
    sum += term;
    squares += term * term / (line.n[i] - 1);
  }
  if (!welch) return {sum, line.seeds_degrees};
  return {sum, squares > 0 ? sum * sum / squares : 0};
}

// Sum of squared residuals of the least-squares polynomial of a degree, weighted by n when asked.
double ResidualSquares(const Line& line, int degree, bool weighted) {
  const Eigen::Index k = static_cast<Eigen::Index>(line.x.size());
  const double centre = Mean(line.x), scale = std::sqrt(line.sxx);
  Eigen::MatrixXd design(k, degree + 1);
  Eigen::VectorXd y(k);
  for (Eigen::Index i = 0; i < k; ++i) {
    const double w = weighted ? std::sqrt(line.n[i]) : 1.0;
    for (int power = 0; power <= degree; ++power) design(i, power) = w * std::pow((line.x[i] - centre) / scale, power);
    y(i) = w * line.y[i];
  }
  return (y - design * design.colPivHouseholderQr().solve(y)).squaredNorm();
}

// F test of lack of fit against the variance between seeds, which is that of y - slope x where x varies too.
bool IsCurved(const Line& line, const Covariance& c) {
  const double k = static_cast<double>(line.x.size());
  const double residual = c.yy - 2 * line.slope * c.xy + line.slope * line.slope * c.xx;
  if (k < 3 || line.seeds_degrees < 1 || residual <= 0) return false;
  const double f = ResidualSquares(line, 1, true) / (k - 2) / residual;
  const boost::math::fisher_f_distribution<double, InDoubles> distribution(k - 2, line.seeds_degrees);
  return boost::math::cdf(boost::math::complement(distribution, f)) < kCurvedBelow;
}

Interval Around(double centre, double variance, double degrees, double confidence) {
  const double half = TQuantile(confidence, degrees) * std::sqrt(variance);
  return {centre - half, centre + half, degrees};
}

void AddLineInterval(const Line& line, double confidence, SlopeEstimate* out) {
  const size_t k = line.x.size();
  if (k < 3) return;
  const int degree = k >= kQuadraticFromSizes ? 2 : 1;
  const double degrees = static_cast<double>(k) - 1 - degree;
  out->line_variance = ResidualSquares(line, degree, false) / degrees / line.sxx;
  out->line_interval = Around(line.slope, out->line_variance, degrees, confidence);
}

// Standard deviation between seeds of what the line leaves: of y where x does not vary.
double ResidualSd(const SizeSamples& size, double slope) {
  std::vector<double> left;
  for (size_t s = 0; s < size.y.size(); ++s) left.push_back(size.y[s] - slope * (size.x[s] - size.x[0]));
  return std::sqrt(CrossDeviation(left, left) / (static_cast<double>(left.size()) - 1));
}

void FlagSeeds(std::span<const SizeSamples> sizes, const Line& line, bool pooled, SlopeEstimate* out) {
  if (line.seeds_degrees == 0) {
    out->flags.push_back("one seed");
    return;
  }
  std::vector<double> sds;
  for (size_t i = 0; i < sizes.size(); ++i)
    if (line.n[i] > 1) sds.push_back(ResidualSd(sizes[i], line.slope));
  const auto [low, high] = std::ranges::minmax(sds);
  if (high > kUnequalSdRatio * low) out->flags.push_back("unequal seed sd");
  const auto [fewest, most] = std::ranges::minmax(line.n);
  if (pooled && fewest != most) out->flags.push_back("pooled across unequal seeds");
}

bool NoVariance(double variance, double slope) { return std::sqrt(variance) <= kRelativeZero * std::abs(slope); }

void AddIntervals(std::span<const SizeSamples> sizes, const Line& line, double confidence, SlopeEstimate* out) {
  const bool x_varies = XVaries(sizes);
  const bool welch = !x_varies && std::ranges::min(line.n) >= 3;
  FlagSeeds(sizes, line, !welch, out);
  if (line.x.size() == 2) out->flags.push_back("two sizes");
  if (line.seeds_degrees > 0) {
    if (IsCurved(line, PooledCovariance(sizes, line.seeds_degrees))) out->flags.push_back("curved");
    std::vector<double> terms = welch ? WelchTerms(sizes, line) : PooledTerms(sizes, line);
    const Variance v = SumOf(terms, line, welch);
    if (NoVariance(v.value, line.slope)) {
      out->alpha.reset();
      out->refused = "the seeds of every size have equal results: are they the same run?";
      return;
    }
    out->variance = v.value;
    out->seed_terms = std::move(terms);
    out->seed_interval = Around(line.slope, v.value, v.degrees, confidence);
  }
  AddLineInterval(line, confidence, out);
  if (!out->seed_interval && !out->line_interval)
    out->refused = "two sizes with one seed give a slope without an interval";
}

struct VarianceAndInterval {
  double variance;
  const std::optional<Interval>& interval;
};

SlopeDifference DifferenceOf(const SlopeEstimate& first, const SlopeEstimate& second, const VarianceAndInterval& v1,
                             const VarianceAndInterval& v2, double confidence) {
  SlopeDifference out;
  out.difference = first.alpha.value_or(NAN) - second.alpha.value_or(NAN);
  if (!first.alpha || !second.alpha || !v1.interval || !v2.interval) return out;
  const Variance sum =
      AddVariances({v1.variance, v1.interval->degrees_of_freedom}, {v2.variance, v2.interval->degrees_of_freedom});
  if (sum.value <= 0) return out;
  out.interval = Around(out.difference, sum.value, sum.degrees, confidence);
  out.p_value = TwoSidedP(out.difference, sum);
  return out;
}

}  // namespace

double TQuantile(double confidence, double degrees) {
  return boost::math::quantile(StudentsT(degrees), 0.5 + confidence / 2);
}

bool SlopeEstimate::HasFlag(std::string_view flag) const { return std::ranges::count(flags, flag) > 0; }

SlopeEstimate EstimateSlope(std::span<const SizeSamples> sizes, double confidence) {
  SlopeEstimate out;
  if (sizes.size() < 2) {
    out.refused = "a slope needs two sizes, and there is " + std::to_string(sizes.size());
    return out;
  }
  const Line line = FitLine(sizes);
  if (line.sxx <= 0) {
    out.refused = "all sizes have the same x";
    return out;
  }
  out.alpha = line.slope;
  AddIntervals(sizes, line, confidence, &out);
  return out;
}

SlopeDifference Difference(const SlopeEstimate& first, const SlopeEstimate& second, double confidence) {
  return DifferenceOf(first, second, {first.variance, first.seed_interval}, {second.variance, second.seed_interval},
                      confidence);
}

SlopeDifference LineDifference(const SlopeEstimate& first, const SlopeEstimate& second, double confidence) {
  return DifferenceOf(first, second, {first.line_variance, first.line_interval},
                      {second.line_variance, second.line_interval}, confidence);
}

std::vector<double> HolmAdjusted(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return p_values[i]; });
  std::vector<double> adjusted(p_values.size());
  double running = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    running = std::max(running, static_cast<double>(order.size() - rank) * p_values[order[rank]]);
    adjusted[order[rank]] = std::min(1.0, running);
  }
  return adjusted;
}

}  // namespace allometry::analysis
