#include "analysis/hypervolume.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>

namespace allometry::analysis {
namespace {

using Point = std::vector<double>;
using Points = std::vector<Point>;

// No worse in every coordinate: a dominates b, or they are equal.
bool Covers(const Point& a, const Point& b) { return std::ranges::equal(a, b, std::less_equal<>()); }

// One of each that no other covers, by rising first coordinate.
Points NotCovered(Points points) {
  std::ranges::sort(points);
  Points kept;
  // What covers a point sorts before it.
  for (Point& point : points) {
    if (std::ranges::none_of(kept, [&](const Point& other) { return Covers(other, point); }))
      kept.push_back(std::move(point));
  }
  return kept;
}

double BoxVolume(const Point& point, const Point& reference) {
  double volume = 1;
  for (size_t k = 0; k < point.size(); ++k) volume *= reference[k] - point[k];
  return volume;
}

// `points` are NotCovered: the first coordinate rises and the second falls.
double Area(std::span<const Point> points, const Point& reference) {
  double area = 0, above = reference[1];
  for (const Point& point : points) {
    area += (reference[0] - point[0]) * (above - point[1]);
    above = point[1];
  }
  return area;
}

double Volume(std::span<const Point> points, const Point& reference);

// What `point` alone dominates: its box without what the others dominate inside of it.
double ExclusiveVolume(const Point& point, std::span<const Point> others, const Point& reference) {
  Points inside;
  for (const Point& other : others) {
    Point& worse = inside.emplace_back(point);
    for (size_t k = 0; k < point.size(); ++k) worse[k] = std::max(point[k], other[k]);
  }
  return BoxVolume(point, reference) - Volume(NotCovered(std::move(inside)), reference);
}

// `points` are NotCovered.
double Volume(std::span<const Point> points, const Point& reference) {
  if (reference.size() == 2) return Area(points, reference);
  double volume = 0;
  for (size_t i = 0; i < points.size(); ++i) volume += ExclusiveVolume(points[i], points.subspan(i + 1), reference);
  return volume;
}

// In two coordinates only the neighbours reach into a point's box.
double ExclusiveArea(std::span<const Point> points, size_t i, const Point& reference) {
  const double right = i + 1 < points.size() ? points[i + 1][0] : reference[0];
  const double above = i > 0 ? points[i - 1][1] : reference[1];
  return (right - points[i][0]) * (above - points[i][1]);
}

double Contribution(const Points& points, size_t i, const Point& reference) {
  if (reference.size() == 2) return ExclusiveArea(points, i, reference);
  Points others = points;
  others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
  return ExclusiveVolume(points[i], others, reference);
}

bool IsBelow(const Point& point, const Point& reference) { return std::ranges::equal(point, reference, std::less<>()); }

}  // namespace

size_t MostPoints(size_t coordinates) {
  constexpr size_t kMost[] = {0, 0, 100'000, 1'000, 200, 100, 100, 100, 60};
  return coordinates < std::size(kMost) ? kMost[coordinates] : 0;
}

common::Result<Hypervolume> MeasureHypervolume(std::span<const Point> points, const Point& reference) {
  if (reference.size() < 2 || std::ranges::any_of(points, [&](const Point& p) { return p.size() != reference.size(); }))
    return common::InvalidArgument("hypervolume: every point needs as many coordinates as the reference, two at least");
  Points below;
  std::ranges::copy_if(points, std::back_inserter(below), [&](const Point& p) { return IsBelow(p, reference); });
  const Points front = NotCovered(std::move(below));
  if (front.size() > MostPoints(reference.size()))
    return common::InvalidArgument("hypervolume: a frontier of " + std::to_string(front.size()) + " points in " +
                                   std::to_string(reference.size()) + " objectives is more than the " +
                                   std::to_string(MostPoints(reference.size())) +
                                   " that are measured exactly: filter, or name fewer costs");
  Hypervolume out{Volume(front, reference), std::vector<double>(points.size(), 0.0)};
  for (size_t i = 0; i < points.size(); ++i) {
    const auto found = std::ranges::lower_bound(front, points[i]);
    if (found == front.end() || *found != points[i]) continue;
    // Twins stand in for each other.
    if (std::ranges::count(points, points[i]) == 1)
      out.contributions[i] = Contribution(front, static_cast<size_t>(found - front.begin()), reference);
  }
  return out;
}

}  // namespace allometry::analysis
