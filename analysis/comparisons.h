#pragma once

#include <vector>

#include "analysis/slopes.h"

namespace allometry::analysis {

// Whether two slopes over the same axes were measured over ranges of which an end differs by more than a tenth of a
// decade (for the U axis, which has no decades, by more than a tenth of the wider range). False if either has no
// points.
bool RangesDiffer(const Slope& a, const Slope& b, Transform transform);

// The differences that the result's request asks for, with verdicts: to the baseline, or of all pairs. Holm's
// adjustment runs over the comparisons of one pair of axes.
std::vector<SlopeComparison> CompareSlopes(const SlopesResult& result);

// The same of each task's slopes, by axes and then by task. Holm's adjustment runs over architectures and tasks
// together: all comparisons of one pair of axes.
std::vector<SlopeComparison> CompareTaskSlopes(const SlopesResult& result);

}  // namespace allometry::analysis
