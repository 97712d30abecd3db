#include "analysis/law_crossover.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/root.h"

namespace allometry::analysis {
namespace {

constexpr int kReplicates = 1000;
constexpr double kFarthest = 30 * 2.302585092994046;  // ln C from the start; what crosses beyond has no crossing
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A run's size and loss, from a slope's x and U.
LawPoint PointOf(double x, double y, Transform transform) {
  if (transform == Transform::kLoglog) return {std::exp(x), 0, std::exp(-y)};
  return {std::pow(10.0, x), 0, -y};
}

// Difference of two laws (E, A, alpha) at ln C.
struct Difference {
  std::span<const double> first, second;

  double operator()(double log_c) const {
    return first[0] - second[0] + first[1] * std::exp(-first[2] * log_c) - second[1] * std::exp(-second[2] * log_c);
  }

  // Where it turns: A1 alpha1 C^-alpha1 = A2 alpha2 C^-alpha2. Absent if it never does.
  std::optional<double> TurningPoint() const {
    const double at = std::log(first[1] * first[2] / (second[1] * second[2])) / (first[2] - second[2]);
    return std::isfinite(at) ? std::optional(at) : std::nullopt;
  }
};

// The first root on the way from `from`; infinite on that side if there is none. Between its turning point and either
// end the difference is monotonous.
double FirstRoot(const Difference& difference, double from, bool above) {
  const double end = above ? from + kFarthest : from - kFarthest;
  std::vector<double> stops{from};
  if (const auto turn = difference.TurningPoint(); turn && std::min(from, end) < *turn && *turn < std::max(from, end))
    stops.push_back(*turn);
  stops.push_back(end);
  for (size_t i = 0; i + 1 < stops.size(); ++i) {
    if ((difference(stops[i]) < 0) != (difference(stops[i + 1]) < 0))
      return RootBetween(difference, stops[i], stops[i + 1]);
  }
  return above ? kInfinity : -kInfinity;
}

}  // namespace

ArchitectureLaw FitArchitectureLaw(std::span<const SizeSamples> sizes, Transform transform, uint64_t seed) {
  std::vector<LawPoint> points;
  for (const SizeSamples& size : sizes) {
    for (size_t s = 0; s < size.y.size(); ++s) points.push_back(PointOf(size.x[s], size.y[s], transform));
  }
  const auto fitted = FitLaw(LawForm::kCompute, points, {.replicates = kReplicates, .seed = seed});
  if (!fitted) return {std::nullopt, fitted.error().message};
  const LawFit& fit = fitted->fits.front();
  if (!fit.converged()) return {std::nullopt, "its fit did not converge: " + fit.certificate.failures.front()};
  return {fit, ""};
}

std::optional<LawCrossing> CrossLaws(const LawFit& first, const LawFit& second, double from, bool above,
                                     double confidence) {
  const std::vector<double> one = first.Parameters(), two = second.Parameters();
  LawCrossing out{.at = FirstRoot({one, two}, from, above)};
  if (!std::isfinite(out.at)) return std::nullopt;
  std::vector<double> roots;
  for (size_t i = 0; i < std::min(first.replicates.size(), second.replicates.size()); ++i) {
    if (first.replicates[i].empty() || second.replicates[i].empty()) continue;
    roots.push_back(FirstRoot({first.replicates[i], second.replicates[i]}, from, above));
  }
  if (roots.empty()) return out;
  const auto missing = std::ranges::count_if(roots, [](double root) { return !std::isfinite(root); });
  out.no_crossing = static_cast<double>(missing) / static_cast<double>(roots.size());
  const Range range = PercentileInterval(std::move(roots), confidence);
  if (std::isfinite(range.low)) out.low = range.low;
  if (std::isfinite(range.high)) out.high = range.high;
  return out;
}

}  // namespace allometry::analysis
