#pragma once

#include <span>
#include <vector>

#include "common/result.h"

namespace allometry::analysis {

struct Hypervolume {
  double volume = 0;
  // Of each point that no other dominates or equals, what the volume of these points would be less without it; else 0.
  std::vector<double> contributions;
};

// The volume of what lies between points and a reference and is dominated by a point, exactly; lower is better in every
// coordinate, of which there are two or more. A point that is not below the reference in every coordinate adds nothing,
// as does one that another dominates or equals. Two coordinates by a sweep, more by the WFG algorithm (While,
// Bradstreet and Barone 2012, IEEE Transactions on Evolutionary Computation 16(1)), whose time can grow steeply with
// the coordinates.
//
// kInvalidArgument: points of another length than the reference, or more that dominate it than MostPoints allows.
common::Result<Hypervolume> MeasureHypervolume(std::span<const std::vector<double>> points,
                                               const std::vector<double>& reference);

// Points not dominated by others that take at most about a second: 100,000 in two coordinates, 1,000 in three, 200 in
// four, 100 in five to seven, 60 in eight; none in more.
size_t MostPoints(size_t coordinates);

}  // namespace allometry::analysis
