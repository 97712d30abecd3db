#include "analysis/slopes.h"

#include <algorithm>
#include <cmath>

#include "analysis/axis_pair.h"
#include "analysis/comparisons.h"
#include "analysis/mean.h"
#include "common/ids.h"

namespace allometry::analysis {
namespace {

constexpr const char* kDefaultReference = "transformer";
// Costs that arch/ computes are exact: a larger spread inside one size means that two things share a name.
constexpr double kEqualCost = 1e-9;

// x and y of one cell on the axes of a slope, transformed; or the measure that is missing and why.
struct TransformedCell {
  double x = 0, y = 0;
  std::string missing_measure, missing;
};

double TransformX(double value, Axis axis, Transform transform) {
  if (axis == Axis::kUpstream) return value;
  return transform == Transform::kLoglog ? std::log(value) : std::log10(value);
}

// -ln(loss) and -ln(1 - D): the sign turned so that a higher slope is better.
Measured TransformY(double value, Axis axis, Transform transform) {
  if (transform == Transform::kSemilog) return {value, ""};
  const double decreasing = axis == Axis::kUpstream ? -value : 1 - value;
  if (decreasing > 0) return {-std::log(decreasing), ""};
  return {std::nullopt, axis == Axis::kUpstream ? "a loss that is not positive has no logarithm"
                                                : "a perfect score has no logarithm of its error"};
}

TransformedCell TransformCell(const records::Record& cell, Axis x, Axis y, const SlopesRequest& request,
                              const MeasureOptions& options) {
  const Measured raw_x = AxisValue(cell, x, options);
  if (!raw_x.value) return {.missing_measure = AxisName(x), .missing = raw_x.missing};
  const Measured raw_y = AxisValue(cell, y, options);
  if (!raw_y.value) return {.missing_measure = AxisName(y), .missing = raw_y.missing};
  // D against U is on plain axes under either transform.
  const Transform transform = x == Axis::kUpstream ? Transform::kSemilog : request.transform;
  const Measured out_y = TransformY(*raw_y.value, y, transform);
  if (!out_y.value) return {.missing_measure = AxisName(y), .missing = out_y.missing};
  return {.x = TransformX(*raw_x.value, x, transform), .y = *out_y.value};
}

// Everything that one call needs to build slopes.
class SlopeBuilder {
 public:
  SlopeBuilder(const SlopesRequest& request, const Selection& selection)
      : request_(request),
        selection_(selection),
        options_{request.flops, request.parameters, selection.downstream.parts},
        left_out_(selection.left_out) {}

  ArchitectureSlopes Build(const std::string& architecture) {
    ArchitectureSlopes out{architecture, {}};
    for (const auto& [x, y] : kAxisPairs) out.slopes.push_back(BuildSlope(architecture, x, y));
    return out;
  }

  const std::vector<LeftOut>& left_out() const { return left_out_.entries(); }

 private:
  Slope BuildSlope(const std::string& architecture, Axis x, Axis y) {
    Slope slope{x, y, {}, {}, {}, {}, 0, {}};
    std::vector<const records::Record*> used;
    std::string mixed_size;
    for (const CellGroup& group : selection_.groups) {
      if (group.architecture == architecture && !AddSize(group, &slope, &used)) mixed_size = group.size;
    }
    slope.cells = static_cast<int>(used.size());
    slope.estimate = Estimate(slope, used, mixed_size);
    AddFlags(used, &slope);
    return slope;
  }

  // Adds the cells of one size; false if they differ in an exact cost.
  bool AddSize(const CellGroup& group, Slope* slope, std::vector<const records::Record*>* used) {
    SizeSamples samples;
    for (const records::Record* cell : group.cells) {
      const TransformedCell t = TransformCell(*cell, slope->x, slope->y, request_, options_);
      if (!t.missing.empty()) {
        left_out_.Add(*cell, t.missing_measure, t.missing);
        continue;
      }
      samples.x.push_back(t.x);
      samples.y.push_back(t.y);
      used->push_back(cell);
    }
    if (samples.y.empty()) return true;
    const auto [low, high] = std::ranges::minmax(samples.x);
    const bool exact = slope->x == Axis::kFlops || slope->x == Axis::kParameters;
    slope->points.push_back(
        {group.size, Mean(samples.x), Mean(samples.y), SampleSd(samples.y), static_cast<int>(samples.y.size())});
    slope->samples.push_back(std::move(samples));
    return !exact || high - low <= kEqualCost;
  }

  SlopeEstimate Estimate(Slope& slope, const std::vector<const records::Record*>& used,
                         const std::string& mixed_size) const {
    SlopeEstimate refused;
    if (slope.x == Axis::kSeconds) {
      const std::set<std::string> devices = DevicesOf(used);
      for (const std::string& device : devices) slope.devices += (slope.devices.empty() ? "" : ", ") + device;
      if (devices.size() > 1) refused.refused = "times on unlike devices cannot be compared: " + slope.devices;
    }
    if (!mixed_size.empty()) {
      refused.refused = "cells of size " + mixed_size + " differ in " + AxisName(slope.x) +
                        ": they are not the same model or recipe; filter them apart";
    }
    return refused.refused.empty() ? EstimateSlope(slope.samples, request_.confidence) : refused;
  }

  void AddFlags(const std::vector<const records::Record*>& used, Slope* slope) const {
    if (slope->y != Axis::kDownstream) return;
    for (const records::Record* cell : used) {
      if (IsAtChance(*cell, options_.tasks)) slope->at_chance_cells.push_back(cell->Name());
    }
    if (!slope->at_chance_cells.empty()) slope->estimate.flags.push_back("at chance");
  }

  const SlopesRequest& request_;
  const Selection& selection_;
  MeasureOptions options_;
  LeftOutList left_out_;
};

const ArchitectureSlopes* FindArchitecture(const SlopesResult& result, const std::string& name) {
  const auto found = std::ranges::find(result.architectures, name, &ArchitectureSlopes::architecture);
  return found == result.architectures.end() ? nullptr : &*found;
}

// Whose ranges the others' are held against: the baseline, else `transformer`, else the first.
std::string ReferenceOf(const SlopesResult& result) {
  for (const std::string& name : {result.request.baseline, std::string(kDefaultReference)}) {
    if (FindArchitecture(result, name)) return name;
  }
  return result.architectures.front().architecture;
}

void FlagRanges(SlopesResult* result) {
  const ArchitectureSlopes reference = *FindArchitecture(*result, result->reference);
  for (ArchitectureSlopes& architecture : result->architectures) {
    for (size_t i = 0; i < architecture.slopes.size(); ++i) {
      Slope& slope = architecture.slopes[i];
      if (RangesDiffer(slope, reference.slopes[i], result->request.transform))
        slope.estimate.flags.push_back("ranges differ");
    }
  }
}

common::Status CheckRequest(const SlopesRequest& request) {
  if (request.confidence > 0.5 && request.confidence < 1) return common::Ok();
  return common::InvalidArgument("confidence must lie between 0.5 and 1, as in 0.95");
}

common::Status CheckBaseline(const std::string& baseline, const std::vector<std::string>& architectures) {
  if (baseline.empty() || baseline == "*" || std::ranges::count(architectures, baseline) > 0) return common::Ok();
  const std::string near = common::NearestName(baseline, architectures);
  return common::NotFound("baseline: no finished cell has the architecture '" + baseline + "'" +
                          (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

}  // namespace

common::Result<SlopesResult> Slopes(const records::Table& table, const SlopesRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckRequest(request));
  ALLO_ASSIGN_OR_RETURN(const records::Table cells, FilteredCells(table, request.filter, request.exclude));
  ALLO_ASSIGN_OR_RETURN(const Selection selection, SelectCells(cells, request.tasks));
  if (selection.groups.empty()) return NoCells(selection);
  ALLO_RETURN_IF_ERROR(CheckBaseline(request.baseline, selection.architectures));
  SlopeBuilder builder(request, selection);
  SlopesResult result{request, selection.downstream, "", {}, {}, {}};
  for (const std::string& architecture : selection.architectures)
    result.architectures.push_back(builder.Build(architecture));
  result.left_out = builder.left_out();
  result.reference = ReferenceOf(result);
  FlagRanges(&result);
  result.comparisons = CompareSlopes(result);
  return result;
}

const Slope* FindSlope(const ArchitectureSlopes& architecture, Axis x, Axis y) {
  for (const Slope& slope : architecture.slopes) {
    if (slope.x == x && slope.y == y) return &slope;
  }
  return nullptr;
}

}  // namespace allometry::analysis
