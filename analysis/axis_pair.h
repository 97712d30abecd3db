#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/measures.h"
#include "common/result.h"

namespace allometry::analysis {

// The axes of one kind of slope: quality y against x.
struct AxisPair {
  Axis x = Axis::kFlops, y = Axis::kUpstream;
  bool operator==(const AxisPair&) const = default;
};

// The pairs that slopes are computed for.
inline constexpr std::array<AxisPair, 7> kAxisPairs = {{{Axis::kFlops, Axis::kUpstream},
                                                        {Axis::kFlops, Axis::kDownstream},
                                                        {Axis::kParameters, Axis::kUpstream},
                                                        {Axis::kParameters, Axis::kDownstream},
                                                        {Axis::kUpstream, Axis::kDownstream},
                                                        {Axis::kSeconds, Axis::kUpstream},
                                                        {Axis::kSeconds, Axis::kDownstream}}};

// "F,U" or "flops,upstream"; the empty text is F,U. kInvalidArgument, with the list, for what is not in kAxisPairs.
common::Result<AxisPair> ParseAxisPair(std::string_view text);
std::string AxisPairName(const AxisPair& pair);  // "F,U"

// Those that took no part at all, or not on one of these axes.
std::vector<LeftOut> LeftOutOfAxes(const std::vector<LeftOut>& left_out, const AxisPair& pair);

// An x of a slope's line in the units of its axis: FLOPs, parameters, seconds, or U itself. Infinite beyond a double's
// range.
double ValueOfX(double x, Axis axis, Transform transform);

}  // namespace allometry::analysis
