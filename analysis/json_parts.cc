#include "analysis/json_parts.h"

#include "common/table.h"

namespace allometry::analysis {

using common::Json;
using common::JsonNumber;

Json OrNull(const std::optional<double>& value) { return value ? JsonNumber(*value) : Json(nullptr); }

Json IntervalJson(const std::optional<Interval>& interval) {
  if (!interval) return nullptr;
  return {{"low", JsonNumber(interval->low)},
          {"high", JsonNumber(interval->high)},
          {"degrees_of_freedom", JsonNumber(interval->degrees_of_freedom)}};
}

Json LeftOutJson(const std::vector<LeftOut>& left_out) {
  Json list = Json::array();
  for (const LeftOut& entry : left_out)
    list.push_back({{"cell", entry.cell}, {"measure", entry.measure}, {"reason", entry.reason}});
  return list;
}

Json DownstreamJson(const Downstream& downstream) {
  return {{"definition", DefinitionName(downstream.definition)}, {"note", downstream.note}};
}

}  // namespace allometry::analysis
