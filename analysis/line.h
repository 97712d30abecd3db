#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

// The equally weighted line through size means, and what is known of its slope (docs/science.md, "Slopes").
namespace allometry::analysis {

struct Interval {
  double low = 0, high = 0;
  double degrees_of_freedom = 0;
};

// The seeds of one size, transformed already. x and y have equal, positive length; x may vary between seeds (upstream
// loss, seconds) or not (FLOPs, parameters).
struct SizeSamples {
  std::vector<double> x, y;
};

struct SlopeEstimate {
  std::optional<double> alpha;
  double variance = 0;                    // of alpha under infinitely many repetitions of the seeds; 0 when unknown
  std::optional<Interval> seed_interval;  // this grid under infinitely many seeds
  std::vector<double> seed_terms;  // w_i, in the order of the sizes: variance = sum w_i / n_i; empty when unknown
  double line_variance = 0;        // the same with the deviations from size to size; 0 when unknown
  std::optional<Interval> line_interval;  // allows for deviations from size to size too
  std::vector<std::string> flags;         // "curved", "one seed", "two sizes", ...
  std::string refused;                    // why alpha or every interval is missing
  bool HasFlag(std::string_view flag) const;
};

// Seed interval: alpha +- t sqrt(sum a_i^2 v_i / n_i), a_i = (x_i - mean x) / Sxx. Three or more seeds at every size:
// v_i = s_i^2 with Satterthwaite's degrees of freedom; otherwise the pooled variance with sum(n_i - 1). Where x varies
// between seeds: the delta method with the pooled 2 x 2 covariance. Line interval: Student's t on the size means with k
// - 2 degrees of freedom, from six sizes on with the quadratic removed and k - 3. `confidence` is in (0, 1).
SlopeEstimate EstimateSlope(std::span<const SizeSamples> sizes, double confidence);

struct SlopeDifference {
  double difference = 0;  // first minus second
  std::optional<Interval> interval;
  double p_value = 1;  // two-sided, unadjusted; 1 when no variance is known
};

// Difference of two independent slopes: variances add, Satterthwaite's degrees of freedom. Needs both seed intervals.
SlopeDifference Difference(const SlopeEstimate& first, const SlopeEstimate& second, double confidence);
// The same from the variances behind the line intervals. Needs both line intervals.
SlopeDifference LineDifference(const SlopeEstimate& first, const SlopeEstimate& second, double confidence);

// Two bent curves seen over two ranges: y = level_g + slope_g (x - at) + bend (x - at)^2 with one bend for both, fitted
// to the size means with equal weights; slope_g is the local slope at `at`, the middle of the ranges' overlap. The
// variance comes from the seeds by the delta method.
struct SharedCurvature {
  double at = 0;  // in the units of x
  double first = 0, second = 0;
  double bend = 0;
  std::optional<Interval> difference_interval;  // of first - second, from the seeds
  double p_value = 1;                           // two-sided, unadjusted
  std::string refused;                          // why there is none: no overlap, too few sizes
};
SharedCurvature FitSharedCurvature(std::span<const SizeSamples> first, std::span<const SizeSamples> second,
                                   double confidence);

// The t within which a share `confidence` of Student's distribution lies; any positive degrees of freedom.
double TQuantile(double confidence, double degrees);

// Holm's step-down adjustment; the result is in the order of the arguments and never falls along the sorted order.
std::vector<double> HolmAdjusted(std::span<const double> p_values);

}  // namespace allometry::analysis
