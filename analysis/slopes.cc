#include "analysis/slopes.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cmath>
#include <unordered_map>

#include "analysis/axis_pair.h"
#include "analysis/comparisons.h"
#include "analysis/mean.h"
#include "analysis/parallel.h"
#include "common/ids.h"

namespace allometry::analysis {
namespace {

constexpr const char* kDefaultReference = "transformer";
// Costs that arch/ computes are exact: a larger spread inside one size means that two things share a name.
constexpr double kEqualCost = 1e-9;
constexpr size_t kAxes = 5;
// Pairs of axes of one task's slopes; its score takes the place of D.
constexpr std::array<AxisPair, 3> kTaskAxisPairs = {
    {{Axis::kFlops, Axis::kDownstream}, {Axis::kParameters, Axis::kDownstream}, {Axis::kUpstream, Axis::kDownstream}}};
constexpr size_t kMostComparedPairs = 10'000;

// x and y of one cell on the axes of a slope, transformed; or the measure that is missing and why.
struct TransformedCell {
  double x = 0, y = 0;
  Axis missing_measure = Axis::kFlops;
  std::string missing;
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

// What a cell measures, read once for all slopes.
struct MeasuredCell {
  const records::Record* cell = nullptr;
  std::array<Measured, kAxes> values;  // by Axis
  bool at_chance = false;              // of its downstream scores
  std::bitset<kAxes> omitted;          // measures for which it is already said to be missing

  const Measured& operator[](Axis axis) const { return values[static_cast<size_t>(axis)]; }
};

struct MeasuredGroup {
  const std::string* size = nullptr;
  std::vector<MeasuredCell> cells;
};

MeasuredCell MeasureCell(const records::Record& record, const MeasureOptions& options) {
  MeasuredCell out{.cell = &record, .values = {}, .at_chance = IsAtChance(record, options.tasks)};
  for (size_t axis = 0; axis < kAxes; ++axis) out.values[axis] = AxisValue(record, static_cast<Axis>(axis), options);
  return out;
}

TransformedCell TransformCell(const MeasuredCell& cell, Axis x, Axis y, Transform wanted) {
  if (!cell[x].value) return {.missing_measure = x, .missing = cell[x].missing};
  if (!cell[y].value) return {.missing_measure = y, .missing = cell[y].missing};
  // D against U is on plain axes under either transform.
  const Transform transform = x == Axis::kUpstream ? Transform::kSemilog : wanted;
  const Measured out_y = TransformY(*cell[y].value, y, transform);
  if (!out_y.value) return {.missing_measure = y, .missing = out_y.missing};
  return {.x = TransformX(*cell[x].value, x, transform), .y = *out_y.value};
}

// The slopes of one architecture, and what could not be measured for them.
class SlopeBuilder {
 public:
  SlopeBuilder(const SlopesRequest& request, std::vector<MeasuredGroup> groups)
      : request_(request), groups_(std::move(groups)) {}

  // `task` is named when the cells' downstream score is that task's.
  Slope Build(Axis x, Axis y, const std::string& task = "") {
    Slope slope{.x = x, .y = y, .task = task};
    std::vector<const records::Record*> used;
    std::string mixed_size;
    for (MeasuredGroup& group : groups_) {
      if (!AddSize(group, &slope, &used)) mixed_size = *group.size;
    }
    slope.cells = static_cast<int>(used.size());
    slope.estimate = Estimate(slope, used, mixed_size);
    if (!slope.at_chance_cells.empty()) slope.estimate.flags.push_back("at chance");
    return slope;
  }

  const std::vector<Omission>& omissions() const { return omissions_; }

 private:
  // Adds the cells of one size; false if they differ in an exact cost.
  bool AddSize(MeasuredGroup& group, Slope* slope, std::vector<const records::Record*>* used) {
    SizeSamples samples;
    for (MeasuredCell& cell : group.cells) {
      if (IsOmitted(cell, slope->x, slope->y)) continue;
      const TransformedCell t = TransformCell(cell, slope->x, slope->y, request_.transform);
      if (!t.missing.empty()) {
        Omit(t, &cell);
        continue;
      }
      samples.x.push_back(t.x);
      samples.y.push_back(t.y);
      used->push_back(cell.cell);
      if (slope->y == Axis::kDownstream && cell.at_chance) slope->at_chance_cells.push_back(cell.cell->Name());
    }
    if (samples.y.empty()) return true;
    const auto [low, high] = std::ranges::minmax(samples.x);
    const bool exact = slope->x == Axis::kFlops || slope->x == Axis::kParameters;
    slope->points.push_back(
        {*group.size, Mean(samples.x), Mean(samples.y), SampleSd(samples.y), static_cast<int>(samples.y.size())});
    slope->samples.push_back(std::move(samples));
    return !exact || high - low <= kEqualCost;
  }

  // It lacks one of the two, and an earlier slope has said so: a study without fine-tuning lacks D in every cell.
  static bool IsOmitted(const MeasuredCell& cell, Axis x, Axis y) {
    const Axis lacking = cell[x].value ? y : x;
    return !cell[lacking].value && cell.omitted[static_cast<size_t>(lacking)];
  }

  void Omit(const TransformedCell& t, MeasuredCell* cell) {
    const auto measure = static_cast<size_t>(t.missing_measure);
    if (cell->omitted[measure]) return;
    cell->omitted.set(measure);
    omissions_.push_back({cell->cell, AxisName(t.missing_measure), t.missing});
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

  const SlopesRequest& request_;
  std::vector<MeasuredGroup> groups_;
  std::vector<Omission> omissions_;
};

// The groups of each architecture, in the order of both.
std::vector<std::vector<const CellGroup*>> GroupsByArchitecture(const Selection& selection) {
  std::unordered_map<std::string_view, size_t> index;
  for (size_t i = 0; i < selection.architectures.size(); ++i) index[selection.architectures[i]] = i;
  std::vector<std::vector<const CellGroup*>> groups(selection.architectures.size());
  for (const CellGroup& group : selection.groups) groups[index.at(group.architecture)].push_back(&group);
  return groups;
}

// Everything that is known of one architecture.
struct BuiltArchitecture {
  std::vector<Slope> slopes;
  std::vector<std::vector<Slope>> by_task;
  std::vector<Omission> omissions;
};

class StudyBuilder {
 public:
  StudyBuilder(const SlopesRequest& request, const Selection& selection)
      : request_(request), selection_(selection), groups_(GroupsByArchitecture(selection)) {
    if (request.per_task) tasks_ = TasksOf(selection.groups);
  }

  void Fill(SlopesResult* result) const {
    std::vector<BuiltArchitecture> built(groups_.size());
    ParallelFor(groups_.size(), 0, [&](size_t i) { built[i] = Build(groups_[i]); });
    LeftOutList left_out(selection_.left_out);
    result->tasks.resize(tasks_.size());
    for (size_t t = 0; t < tasks_.size(); ++t) result->tasks[t].task = tasks_[t];
    for (size_t i = 0; i < built.size(); ++i) {
      const std::string& name = selection_.architectures[i];
      result->architectures.push_back({name, std::move(built[i].slopes)});
      for (size_t t = 0; t < tasks_.size(); ++t)
        result->tasks[t].architectures.push_back({name, std::move(built[i].by_task[t])});
      for (const Omission& o : built[i].omissions) left_out.Add(*o.cell, o.measure, o.reason);
    }
    result->left_out = std::move(left_out).entries();
  }

 private:
  BuiltArchitecture Build(const std::vector<const CellGroup*>& groups) const {
    BuiltArchitecture out;
    SlopeBuilder builder(request_, MeasureAll(groups, selection_.downstream.parts));
    for (const auto& [x, y] : kAxisPairs) out.slopes.push_back(builder.Build(x, y));
    out.omissions = builder.omissions();
    for (size_t t = 0; t < tasks_.size(); ++t) BuildTask(groups, t, &out);
    return out;
  }

  void BuildTask(const std::vector<const CellGroup*>& groups, size_t task, BuiltArchitecture* out) const {
    SlopeBuilder builder(request_, MeasureAll(groups, {tasks_[task]}));
    std::vector<Slope>& slopes = out->by_task.emplace_back();
    for (const auto& [x, y] : kTaskAxisPairs) slopes.push_back(builder.Build(x, y, tasks_[task]));
    // What else is missing is told once, by the slopes of all tasks together.
    for (const Omission& o : builder.omissions()) {
      if (o.measure == AxisName(Axis::kDownstream) && !o.cell->scores.empty())
        out->omissions.push_back({o.cell, tasks_[task], o.reason});
    }
  }

  std::vector<MeasuredGroup> MeasureAll(const std::vector<const CellGroup*>& groups,
                                        const std::vector<std::string>& scores) const {
    const MeasureOptions options{request_.flops, request_.parameters, scores};
    std::vector<MeasuredGroup> out;
    for (const CellGroup* group : groups) {
      MeasuredGroup& measured = out.emplace_back();
      measured.size = &group->size;
      for (const records::Record* cell : group->cells) measured.cells.push_back(MeasureCell(*cell, options));
    }
    return out;
  }

  const SlopesRequest& request_;
  const Selection& selection_;
  std::vector<std::vector<const CellGroup*>> groups_;
  std::vector<std::string> tasks_;
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

void FlagRanges(const std::string& reference_name, Transform transform,
                std::vector<ArchitectureSlopes>* architectures) {
  const ArchitectureSlopes reference =
      *std::ranges::find(*architectures, reference_name, &ArchitectureSlopes::architecture);
  for (ArchitectureSlopes& architecture : *architectures) {
    for (size_t i = 0; i < architecture.slopes.size(); ++i) {
      Slope& slope = architecture.slopes[i];
      if (RangesDiffer(slope, reference.slopes[i], transform)) slope.estimate.flags.push_back("ranges differ");
    }
  }
}

common::Status CheckRequest(const SlopesRequest& request) {
  if (request.confidence > 0.5 && request.confidence < 1) return common::Ok();
  return common::InvalidArgument("confidence must lie between 0.5 and 1, as in 0.95");
}

common::Status CheckBaseline(const std::string& baseline, const std::vector<std::string>& architectures) {
  if (baseline == "*" && architectures.size() * (architectures.size() - 1) / 2 > kMostComparedPairs)
    return common::InvalidArgument("baseline: " + std::to_string(architectures.size()) +
                                   " architectures have more than " + std::to_string(kMostComparedPairs) +
                                   " pairs: name one of them, or filter");
  if (baseline.empty() || baseline == "*" || std::ranges::count(architectures, baseline) > 0) return common::Ok();
  const std::string near = common::NearestName(baseline, architectures);
  return common::NotFound("baseline: no finished cell has the architecture '" + baseline + "'" +
                          (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

}  // namespace

common::Result<SlopesResult> Slopes(const records::Table& table, const SlopesRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckRequest(request));
  ALLO_ASSIGN_OR_RETURN(const RequestedCells cells, FilteredCells(table, request.filter, request.exclude));
  ALLO_ASSIGN_OR_RETURN(const Selection selection, SelectCells(cells, request.tasks));
  if (selection.groups.empty()) return NoCells(selection);
  ALLO_RETURN_IF_ERROR(CheckBaseline(request.baseline, selection.architectures));
  SlopesResult result{.request = request, .downstream = selection.downstream};
  StudyBuilder(request, selection).Fill(&result);
  result.reference = ReferenceOf(result);
  FlagRanges(result.reference, request.transform, &result.architectures);
  for (TaskSlopes& task : result.tasks) FlagRanges(result.reference, request.transform, &task.architectures);
  result.comparisons = CompareSlopes(result);
  result.task_comparisons = CompareTaskSlopes(result);
  return result;
}

const Slope* FindSlope(const ArchitectureSlopes& architecture, Axis x, Axis y) {
  for (const Slope& slope : architecture.slopes) {
    if (slope.x == x && slope.y == y) return &slope;
  }
  return nullptr;
}

}  // namespace allometry::analysis
