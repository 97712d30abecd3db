#include "analysis/measures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include "common/ids.h"

namespace allometry::analysis {
namespace {

constexpr std::array<const char*, 5> kAxisNames = {"flops", "parameters", "upstream", "downstream", "seconds"};
constexpr std::array<const char*, 5> kAxisLetters = {"F", "P", "U", "D", "s"};
constexpr std::array<const char*, 2> kTransformNames = {"semilog", "loglog"};
constexpr std::array<const char*, 5> kFlopNames = {"forward", "forward_without_head", "mtf", "six_nd", "training"};
constexpr std::array<const char*, 5> kFlopMetrics = {"forward_flops", "forward_flops_without_head", "mtf_multiply_adds",
                                                     "six_nd", "training_flops"};
constexpr std::array<const char*, 3> kParameterNames = {"total", "non_embedding", "active"};
constexpr std::array<const char*, 3> kParameterMetrics = {"parameters", "non_embedding_parameters",
                                                          "active_parameters"};

template <typename Enum, size_t n>
common::Result<Enum> ParseName(std::string_view name, const std::array<const char*, n>& names, const char* what) {
  if (name.empty()) return Enum{};
  std::string all;
  for (size_t i = 0; i < n; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
    all += (i ? ", " : "") + std::string(names[i]);
  }
  const std::string near = common::NearestName(std::string(name), names);
  return common::InvalidArgument("unknown " + std::string(what) + " '" + std::string(name) + "': use one of " + all +
                                 (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

std::string NotDone(records::CellState state, const std::string& reason) {
  return records::CellStateName(state) + (reason.empty() ? "" : ": " + reason);
}

Measured Downstream(const records::Record& record, const std::vector<std::string>& tasks) {
  if (tasks.empty()) return {std::nullopt, "no cell has a downstream score"};
  double sum = 0;
  for (const std::string& task : tasks) {
    const Measured value = TaskValue(record, task);
    if (!value.value) return value;
    sum += *value.value;
  }
  return {sum / static_cast<double>(tasks.size()), ""};
}

common::Result<std::vector<std::string>> TasksOf(const std::vector<CellGroup>& groups,
                                                 const std::vector<std::string>& wanted) {
  std::set<std::string> known;
  for (const CellGroup& group : groups) {
    for (const records::Record* cell : group.cells) {
      for (const auto& [task, score] : cell->scores) known.insert(task);
    }
  }
  for (const std::string& task : wanted) {
    if (known.contains(task)) continue;
    std::string all;
    for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
    return common::InvalidArgument("no cell has a score of the task '" + task + "': there " +
                                   (all.empty() ? "are no scores" : "is " + all));
  }
  // A task named twice counts once.
  if (!wanted.empty()) known = std::set<std::string>(wanted.begin(), wanted.end());
  return std::vector<std::string>(known.begin(), known.end());
}

// Why a record takes no part in anything; empty if it does.
std::string WhyLeftOut(const records::Record& record) {
  if (record.excluded) return "left out by the user" + (record.excluded->empty() ? "" : ": " + *record.excluded);
  if (record.state != records::CellState::kDone) return NotDone(record.state, record.reason);
  return "";
}

std::string SizeLabel(const records::Record& record) {
  return record.shape.empty() ? record.size : record.size + " (" + record.shape + ")";
}

// Finds a record's group in a selection without walking over all of them.
class Grouper {
 public:
  explicit Grouper(Selection* selection) : selection_(selection) {}
  void Add(const records::Record& record) {
    if (architectures_.insert(record.architecture).second) selection_->architectures.push_back(record.architecture);
    const std::string size = SizeLabel(record);
    const auto [entry, is_new] = index_.try_emplace({record.architecture, size}, selection_->groups.size());
    if (is_new) selection_->groups.push_back({record.architecture, size, {}});
    selection_->groups[entry->second].cells.push_back(&record);
  }

 private:
  Selection* selection_;
  std::set<std::string> architectures_;
  std::map<std::pair<std::string, std::string>, size_t> index_;
};

}  // namespace

const char* AxisName(Axis axis) { return kAxisNames[static_cast<size_t>(axis)]; }
const char* AxisLetter(Axis axis) { return kAxisLetters[static_cast<size_t>(axis)]; }
const char* TransformName(Transform transform) { return kTransformNames[static_cast<size_t>(transform)]; }
const char* FlopConventionName(FlopConvention c) { return kFlopNames[static_cast<size_t>(c)]; }
const char* ParameterConventionName(ParameterConvention c) { return kParameterNames[static_cast<size_t>(c)]; }
const char* MetricOf(FlopConvention convention) { return kFlopMetrics[static_cast<size_t>(convention)]; }
const char* MetricOf(ParameterConvention convention) { return kParameterMetrics[static_cast<size_t>(convention)]; }

common::Result<Transform> ParseTransform(std::string_view name) {
  return ParseName<Transform>(name, kTransformNames, "transform");
}
common::Result<FlopConvention> ParseFlopConvention(std::string_view name) {
  return ParseName<FlopConvention>(name, kFlopNames, "FLOP convention");
}
common::Result<ParameterConvention> ParseParameterConvention(std::string_view name) {
  return ParseName<ParameterConvention>(name, kParameterNames, "parameter convention");
}

Measured MetricValue(const records::Record& record, const std::string& name, bool positive) {
  const auto found = record.metrics.find(name);
  if (found == record.metrics.end()) return {std::nullopt, "no " + name + " was recorded"};
  if (!std::isfinite(found->second)) return {std::nullopt, name + " is not finite"};
  if (positive && found->second <= 0) return {std::nullopt, name + " is not positive"};
  return {found->second, ""};
}

Measured TaskValue(const records::Record& record, const std::string& task) {
  const auto found = record.scores.find(task);
  if (found != record.scores.end()) {
    if (std::isfinite(found->second.value)) return {found->second.value, ""};
    return {std::nullopt, "the score of " + task + " is not finite"};
  }
  if (!record.finetune_state) return {std::nullopt, "no score of " + task + ": not fine-tuned"};
  if (*record.finetune_state == records::CellState::kDone) return {std::nullopt, "no score of " + task};
  return {std::nullopt, "fine-tuning " + NotDone(*record.finetune_state, record.finetune_reason)};
}

bool IsAtChance(const records::Record& record, const std::vector<std::string>& tasks) {
  return std::ranges::any_of(tasks, [&](const std::string& task) {
    const auto score = record.scores.find(task);
    return score != record.scores.end() && score->second.at_chance;
  });
}

Measured AxisValue(const records::Record& record, Axis axis, const MeasureOptions& options) {
  switch (axis) {
    case Axis::kFlops:
      return MetricValue(record, MetricOf(options.flops), true);
    case Axis::kParameters:
      return MetricValue(record, MetricOf(options.parameters), true);
    case Axis::kSeconds:
      return MetricValue(record, "device_seconds", true);
    case Axis::kDownstream:
      return Downstream(record, options.tasks);
    case Axis::kUpstream:
      break;
  }
  Measured loss = MetricValue(record, "validation_loss", false);
  if (loss.value) *loss.value = -*loss.value;
  return loss;
}

common::Result<Selection> SelectCells(const records::Table& table, const std::vector<std::string>& wanted_tasks) {
  Selection selection;
  LeftOutList left_out({});
  Grouper grouper(&selection);
  std::map<std::tuple<std::string, std::string, uint64_t>, std::string> first_with_seed;
  for (const records::Record& record : table) {
    const std::string reason = WhyLeftOut(record);
    if (!reason.empty()) {
      left_out.Add(record, "all", reason);
      continue;
    }
    const auto [first, is_new] =
        first_with_seed.try_emplace({record.architecture, SizeLabel(record), record.seed}, record.Name());
    if (is_new) {
      grouper.Add(record);
    } else {
      left_out.Add(record, "all", "the same architecture, size and seed as " + first->second + ": a seed counts once");
    }
  }
  selection.left_out = left_out.entries();
  ALLO_ASSIGN_OR_RETURN(selection.tasks, TasksOf(selection.groups, wanted_tasks));
  return selection;
}

common::Result<records::Table> FilteredCells(const records::Table& table, const std::string& filter,
                                             const std::vector<std::string>& exclude) {
  ALLO_ASSIGN_OR_RETURN(const records::Filter parsed, records::Filter::Parse(filter));
  records::Table cells = records::Select(table, parsed);
  ALLO_RETURN_IF_ERROR(records::Exclude(&cells, exclude, ""));
  return cells;
}

common::Error NoCells(const Selection& selection) {
  if (selection.left_out.empty())
    return common::FailedPrecondition("there are no cells here: does the filter keep any?");
  const LeftOut& first = selection.left_out.front();
  return common::FailedPrecondition("no cell can be used yet; the first left out is " + first.cell + ": " +
                                    first.reason);
}

std::set<std::string> DevicesOf(const std::vector<const records::Record*>& cells) {
  std::set<std::string> devices;
  for (const records::Record* cell : cells) devices.insert(cell->device);
  return devices;
}

void LeftOutList::Add(const records::Record& record, const std::string& measure, const std::string& reason) {
  const std::string name = record.Name();
  if (seen_.emplace(name, measure).second) entries_.push_back({name, measure, reason});
}

}  // namespace allometry::analysis
