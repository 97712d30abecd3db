#include "analysis/comparisons.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <utility>

namespace allometry::analysis {
namespace {

constexpr double kRangeEndDecades = 0.1;
constexpr double kRangeEndShare = 0.1;

constexpr const char* kDiffersSeeds = "differs (seeds)";
constexpr const char* kDiffersBoth = "differs (seeds and sizes)";
constexpr const char* kNoDifference = "no difference shown";
constexpr const char* kNoVerdict = "no verdict";

std::pair<double, double> RangeOf(const Slope& slope) {
  const auto [low, high] = std::ranges::minmax_element(slope.points, {}, &SizePoint::x);
  return {low->x, high->x};
}

// Each architecture against the baseline, or every pair once, in the order of the result.
std::vector<std::pair<const ArchitectureSlopes*, const ArchitectureSlopes*>> PairsOf(
    const std::vector<ArchitectureSlopes>& all, const std::string& baseline) {
  std::vector<std::pair<const ArchitectureSlopes*, const ArchitectureSlopes*>> pairs;
  if (baseline == "*") {
    for (size_t i = 0; i < all.size(); ++i) {
      for (size_t j = i + 1; j < all.size(); ++j) pairs.emplace_back(&all[i], &all[j]);
    }
    return pairs;
  }
  const auto base = std::ranges::find(all, baseline, &ArchitectureSlopes::architecture);
  if (base == all.end()) return pairs;
  for (const ArchitectureSlopes& other : all) {
    if (&other != &*base) pairs.emplace_back(&other, &*base);
  }
  return pairs;
}

// Why no slopes may be compared at all; empty if they may.
std::string WhyNotComparable(const Slope& first, const Slope& second) {
  if (!first.estimate.alpha || !second.estimate.alpha) return "a slope is refused";
  if (first.x == Axis::kSeconds && first.devices != second.devices)
    return "times on unlike devices cannot be compared: " + first.devices + " and " + second.devices;
  return "";
}

SlopeComparison Compare(const Slope& first, const Slope& second, const SlopesRequest& request) {
  SlopeComparison out{.x = first.x, .y = first.y, .task = first.task};
  out.ranges_differ = RangesDiffer(first, second, request.transform);
  out.reason = WhyNotComparable(first, second);
  if (!out.reason.empty()) return out;
  const SlopeDifference seeds = Difference(first.estimate, second.estimate, request.confidence);
  const SlopeDifference line = LineDifference(first.estimate, second.estimate, request.confidence);
  out.difference = seeds.difference;
  out.seed_interval = seeds.interval;
  out.line_interval = line.interval;
  if (seeds.interval) out.p_seeds = seeds.p_value;
  if (line.interval) out.p_line = line.p_value;
  const bool curved = first.estimate.HasFlag("curved") || second.estimate.HasFlag("curved");
  if (curved && out.ranges_differ) {
    out.reason = "curved, and the ranges differ: one curve seen over two ranges would look like two slopes";
    out.shared_curvature = FitSharedCurvature(first.samples, second.samples, request.confidence);
  } else if (!seeds.interval) {
    out.reason = "a slope has no seed interval";
  }
  return out;
}

// Adjusts one kind of p-value over the comparisons [begin, end) that have it.
void AdjustHolm(std::span<SlopeComparison> family, std::optional<double> SlopeComparison::*raw,
                std::optional<double> SlopeComparison::*adjusted) {
  std::vector<double> p;
  for (const SlopeComparison& c : family) {
    if (c.*raw) p.push_back(*(c.*raw));
  }
  const std::vector<double> holm = HolmAdjusted(p);
  size_t next = 0;
  for (SlopeComparison& c : family) {
    if (c.*raw) c.*adjusted = holm[next++];
  }
}

std::string VerdictOf(const SlopeComparison& c, double confidence) {
  if (!c.reason.empty()) return kNoVerdict;
  const double level = 1 - confidence;
  if (*c.p_seeds_holm >= level) return kNoDifference;
  return c.p_line_holm && *c.p_line_holm < level ? kDiffersBoth : kDiffersSeeds;
}

// Those of the slopes at one place of every architecture's list.
void AddComparisons(const std::vector<ArchitectureSlopes>& architectures, size_t kind, const SlopesRequest& request,
                    std::vector<SlopeComparison>* out) {
  for (const auto& [first, second] : PairsOf(architectures, request.baseline)) {
    SlopeComparison c = Compare(first->slopes[kind], second->slopes[kind], request);
    c.first = first->architecture;
    c.second = second->architecture;
    out->push_back(std::move(c));
  }
}

void JudgeFamily(std::span<SlopeComparison> family, double confidence) {
  AdjustHolm(family, &SlopeComparison::p_seeds, &SlopeComparison::p_seeds_holm);
  AdjustHolm(family, &SlopeComparison::p_line, &SlopeComparison::p_line_holm);
  for (SlopeComparison& c : family) c.verdict = VerdictOf(c, confidence);
}

}  // namespace

bool RangesDiffer(const Slope& a, const Slope& b, Transform transform) {
  if (a.points.empty() || b.points.empty()) return false;
  const auto [low_a, high_a] = RangeOf(a);
  const auto [low_b, high_b] = RangeOf(b);
  double limit = kRangeEndDecades * (transform == Transform::kLoglog ? std::numbers::ln10 : 1.0);
  if (a.x == Axis::kUpstream) limit = kRangeEndShare * std::max(high_a - low_a, high_b - low_b);
  return std::abs(low_a - low_b) > limit || std::abs(high_a - high_b) > limit;
}

std::vector<SlopeComparison> CompareSlopes(const SlopesResult& result) {
  std::vector<SlopeComparison> out;
  for (size_t kind = 0; kind < result.architectures.front().slopes.size(); ++kind) {
    const size_t begin = out.size();
    AddComparisons(result.architectures, kind, result.request, &out);
    JudgeFamily(std::span(out).subspan(begin), result.request.confidence);
  }
  return out;
}

std::vector<SlopeComparison> CompareTaskSlopes(const SlopesResult& result) {
  std::vector<SlopeComparison> out;
  if (result.tasks.empty()) return out;
  for (size_t kind = 0; kind < result.tasks.front().architectures.front().slopes.size(); ++kind) {
    const size_t begin = out.size();
    for (const TaskSlopes& task : result.tasks) AddComparisons(task.architectures, kind, result.request, &out);
    JudgeFamily(std::span(out).subspan(begin), result.request.confidence);
  }
  return out;
}

}  // namespace allometry::analysis
