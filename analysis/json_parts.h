#pragma once

#include <optional>
#include <vector>

#include "analysis/line.h"
#include "analysis/measures.h"
#include "common/json.h"

// Parts that the JSON of several results has in common (docs/science.md, "Output").
namespace allometry::analysis {

common::Json OrNull(const std::optional<double>& value);
// null, or {"low", "high", "degrees_of_freedom"}.
common::Json IntervalJson(const std::optional<Interval>& interval);
common::Json LeftOutJson(const std::vector<LeftOut>& left_out);
common::Json DownstreamJson(const Downstream& downstream);

}  // namespace allometry::analysis
