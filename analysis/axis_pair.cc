#include "analysis/axis_pair.h"

#include <cmath>

namespace allometry::analysis {
namespace {

std::string LongName(const AxisPair& pair) { return std::string(AxisName(pair.x)) + "," + AxisName(pair.y); }

}  // namespace

std::string AxisPairName(const AxisPair& pair) { return std::string(AxisLetter(pair.x)) + "," + AxisLetter(pair.y); }

common::Result<AxisPair> ParseAxisPair(std::string_view text) {
  if (text.empty()) return AxisPair{};
  std::string known;
  for (const AxisPair& pair : kAxisPairs) {
    if (text == AxisPairName(pair) || text == LongName(pair)) return pair;
    known += " " + AxisPairName(pair);
  }
  return common::InvalidArgument("unknown axes '" + std::string(text) + "': use one of" + known +
                                 ", or the names, as in flops,upstream");
}

std::vector<LeftOut> LeftOutOfAxes(const std::vector<LeftOut>& left_out, const AxisPair& pair) {
  std::vector<LeftOut> kept;
  for (const LeftOut& entry : left_out) {
    if (entry.measure == "all" || entry.measure == AxisName(pair.x) || entry.measure == AxisName(pair.y))
      kept.push_back(entry);
  }
  return kept;
}

double ValueOfX(double x, Axis axis, Transform transform) {
  if (axis == Axis::kUpstream) return x;
  return transform == Transform::kLoglog ? std::exp(x) : std::pow(10.0, x);
}

}  // namespace allometry::analysis
