#include "analysis/measures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <unordered_map>

#include "analysis/benchmarks.h"
#include "analysis/number_range.h"
#include "common/ids.h"

namespace allometry::analysis {
namespace {

constexpr std::array<const char*, 5> kAxisNames = {"flops", "parameters", "upstream", "downstream", "seconds"};
constexpr std::array<const char*, 5> kAxisLetters = {"F", "P", "U", "D", "s"};
constexpr std::array<const char*, 3> kDefinitionNames = {"tasks", "benchmarks", "wanted"};
constexpr std::array<const char*, 2> kTransformNames = {"semilog", "loglog"};
constexpr int kMostDraws = 10'000'000;
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

std::string Joined(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

Measured ValueOf(const records::Record& record, const Average& average) {
  if (average.value) return {average.value, ""};
  return {std::nullopt, WhyNoScore(record, average.missing)};
}

// Why no analysis takes this number; empty if it does.
std::string WhyUnfit(double value) {
  if (!std::isfinite(value)) return "not finite";
  if (value == 0 || (std::abs(value) >= kLeastNumber && std::abs(value) <= kMostNumber)) return "";
  return std::abs(value) > kMostNumber ? "beyond 1e60" : "not zero, and below 1e-60";
}

// Of a score that is no average.
Measured PlainScore(const records::Record& record, const std::string& task) {
  const auto found = record.scores.find(task);
  if (found == record.scores.end()) return {std::nullopt, WhyNoScore(record, {task})};
  const std::string unfit = WhyUnfit(found->second.value);
  if (!unfit.empty()) return {std::nullopt, "the score of " + task + " is " + unfit};
  return {found->second.value, ""};
}

Measured MeanScore(const records::Record& record, const std::vector<std::string>& tasks) {
  if (tasks.empty()) return {std::nullopt, "no cell has a downstream score"};
  const std::vector<Average> parts = AveragesOfParts(record.scores, tasks);
  double sum = 0;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const Measured value = IsAverage(tasks[i]) ? ValueOf(record, parts[i]) : PlainScore(record, tasks[i]);
    if (!value.value) return value;
    sum += *value.value;
  }
  return {sum / static_cast<double>(tasks.size()), ""};
}

// Of each task what any cell has of it: whether averages can be had at all.
records::TaskScores ScoresTogether(const std::vector<CellGroup>& groups) {
  records::TaskScores together;
  for (const CellGroup& group : groups) {
    for (const records::Record* cell : group.cells) {
      for (const auto& [task, score] : cell->scores) {
        records::Score& merged = together.try_emplace(task, score).first->second;
        merged.in_average = merged.in_average && score.in_average;
        for (const auto& [metric, value] : score.metrics)
          if (std::isfinite(value)) merged.metrics[metric] = value;
      }
    }
  }
  return together;
}

std::vector<std::string> KnownScores(const records::TaskScores& together) {
  std::vector<std::string> known;
  for (const auto& [task, score] : together) known.push_back(task);
  const BenchmarkAverages averages = AverageScores(together);
  for (const std::string_view name : AverageNames())
    if (FindAverage(averages, name)->value && !together.contains(std::string(name))) known.emplace_back(name);
  return known;
}

common::Result<Downstream> WantedDownstream(const records::TaskScores& together,
                                            const std::vector<std::string>& wanted) {
  const std::vector<std::string> known = KnownScores(together);
  for (const std::string& name : wanted) {
    if (std::ranges::count(known, name) > 0) continue;
    const std::string there = known.empty() ? "there are no scores" : "there is " + Joined(known);
    if (!IsAverage(name)) return common::InvalidArgument("no cell has a score of the task '" + name + "': " + there);
    const std::vector<std::string> missing = FindAverage(AverageScores(together), name)->missing;
    return common::InvalidArgument("the average '" + name + "' cannot be had, since no cell has a score of " +
                                   Joined(missing) + ": " + there);
  }
  // A task named twice counts once.
  const std::set<std::string> once(wanted.begin(), wanted.end());
  return Downstream{Downstream::Definition::kWanted, {once.begin(), once.end()}, ""};
}

struct NamedAverage {
  const char* name;
  const Average& average;
};

// "glue lacks glue_cola, glue_rte".
std::string Lacks(const NamedAverage& benchmark) {
  return std::string(benchmark.name) + " lacks " + Joined(benchmark.average.missing);
}

// Those of the scores that take no part in D, for its note.
std::string NotCounted(const records::TaskScores& together, const std::function<bool(const std::string&)>& counts) {
  std::vector<std::string> left;
  for (const auto& [task, score] : together)
    if (!counts(task)) left.push_back(task);
  return left.empty() ? "" : "not in D: " + Joined(left);
}

Downstream DownstreamByTasks(const records::TaskScores& together, const std::vector<std::string>& partly) {
  Downstream d;
  for (const auto& [task, score] : together)
    if (score.in_average) d.parts.push_back(task);
  std::vector<std::string> notes = partly;
  const std::string left = NotCounted(together, [&](const auto& task) { return together.at(task).in_average; });
  if (!partly.empty()) notes.insert(notes.begin(), "D is the mean of " + std::to_string(d.parts.size()) + " tasks");
  if (!left.empty()) notes.push_back(left);
  for (const std::string& note : notes) d.note += (d.note.empty() ? "" : "; ") + note;
  return d;
}

Downstream DefaultDownstream(const records::TaskScores& together) {
  const BenchmarkAverages averages = AverageScores(together);
  const NamedAverage benchmarks[] = {
      {"glue", averages.glue}, {"superglue", averages.superglue}, {"squad", averages.squad}};
  Downstream d{.definition = Downstream::Definition::kBenchmarks};
  std::vector<std::string> partly;
  for (const NamedAverage& benchmark : benchmarks) {
    if (benchmark.average.value)
      d.parts.emplace_back(benchmark.name);
    else if (benchmark.average.scored > 0)
      partly.push_back(Lacks(benchmark));
  }
  if (d.parts.empty() || !partly.empty()) return DownstreamByTasks(together, partly);
  if (d.parts.size() < std::size(benchmarks))
    d.note = "D is the mean of " + std::to_string(d.parts.size()) + " of the study's 3 benchmarks";
  const std::string left = NotCounted(together, [](const auto& task) { return EntersAverages(task); });
  if (!left.empty()) d.note += (d.note.empty() ? "" : "; ") + left;
  return d;
}

// Why a record takes no part in anything; empty if it does.
std::string WhyLeftOut(const records::Record& record, const RequestedCells& requested) {
  if (record.excluded) return "left out by the user" + (record.excluded->empty() ? "" : ": " + *record.excluded);
  if (requested.excluded.contains(&record)) return "left out by the user";
  if (record.state != records::CellState::kDone) return NotDone(record.state, record.reason);
  return "";
}

// Puts each record into its group without walking over all of them. Names are looked up, and not copied, for each.
class Grouper {
 public:
  explicit Grouper(Selection* selection) : selection_(selection) {}

  // Null; or the record that was there before with the same architecture, size and seed.
  const records::Record* Add(const records::Record& record) {
    Group& group = GroupOf(record);
    const auto [first, is_new] = group.by_seed.try_emplace(record.seed, &record);
    if (!is_new) return first->second;
    selection_->groups[group.index].cells.push_back(&record);
    return nullptr;
  }

 private:
  struct Group {
    size_t index = 0;
    std::unordered_map<uint64_t, const records::Record*> by_seed;
  };
  using Key = std::array<std::string_view, 3>;  // architecture, size, shape: they live in the records
  struct HashKey {
    size_t operator()(const Key& key) const {
      size_t hash = 0;
      for (const std::string_view part : key) hash = hash * 0x9e3779b97f4a7c15u + std::hash<std::string_view>()(part);
      return hash;
    }
  };

  Group& GroupOf(const records::Record& record) {
    const auto [entry, is_new] = groups_.try_emplace({record.architecture, record.size, record.shape});
    if (is_new) {
      entry->second.index = selection_->groups.size();
      selection_->groups.push_back({record.architecture, SizeLabel(record), {}});
      if (architectures_.insert(record.architecture).second) selection_->architectures.push_back(record.architecture);
    }
    return entry->second;
  }

  Selection* selection_;
  std::unordered_set<std::string_view> architectures_;
  std::unordered_map<Key, Group, HashKey> groups_;
};

}  // namespace

const char* DefinitionName(Downstream::Definition d) { return kDefinitionNames[static_cast<size_t>(d)]; }
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

std::string SizeLabel(const records::Record& record) {
  return record.shape.empty() ? record.size : record.size + " (" + record.shape + ")";
}

Measured MetricValue(const records::Record& record, const std::string& name, bool positive) {
  const auto found = record.metrics.find(name);
  if (found == record.metrics.end()) return {std::nullopt, "no " + name + " was recorded"};
  const std::string unfit = WhyUnfit(found->second);
  if (!unfit.empty()) return {std::nullopt, name + " is " + unfit};
  if (positive && found->second <= 0) return {std::nullopt, name + " is not positive"};
  return {found->second, ""};
}

std::string WhyNoScore(const records::Record& record, const std::vector<std::string>& names) {
  const std::string what = "no score of " + Joined(names);
  if (!record.finetune_state) return what + ": not fine-tuned";
  if (*record.finetune_state == records::CellState::kDone) return what;
  return "fine-tuning " + NotDone(*record.finetune_state, record.finetune_reason);
}

Measured TaskValue(const records::Record& record, const std::string& task) {
  if (!IsAverage(task)) return PlainScore(record, task);
  return ValueOf(record, AveragesOfParts(record.scores, {{task}}).front());
}

bool IsAtChance(const records::Record& record, const std::vector<std::string>& tasks) {
  return std::ranges::any_of(AveragesOfParts(record.scores, tasks), &Average::AtChance);
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
      return MeanScore(record, options.tasks);
    case Axis::kUpstream:
      break;
  }
  Measured loss = MetricValue(record, "validation_loss", false);
  if (loss.value) *loss.value = -*loss.value;
  return loss;
}

Measured QualityValue(const records::Record& record, const std::string& quality,
                      const std::vector<std::string>& parts) {
  if (quality == "upstream") return AxisValue(record, Axis::kUpstream, {});
  if (quality == "downstream") return AxisValue(record, Axis::kDownstream, {.tasks = parts});
  return TaskValue(record, quality);
}

std::vector<std::string> QualityTasks(const std::string& quality, const std::vector<std::string>& parts) {
  if (quality == "upstream") return {};
  return quality == "downstream" ? parts : std::vector<std::string>{quality};
}

common::Status CheckDraws(int draws, const std::optional<double>& seed_sd) {
  if (seed_sd && !(std::isfinite(*seed_sd) && *seed_sd > 0))
    return common::InvalidArgument("the seed sd must be a positive number");
  if (draws < 0 || draws > kMostDraws) return common::InvalidArgument("draws must lie between 0 and 10,000,000");
  return common::Ok();
}

std::string WhyNoProbability(const std::optional<double>& seed_sd, int draws) {
  if (draws == 0) return "no draws were asked for";
  if (!seed_sd) return "no cell has a replicate (give a seed sd to assume one)";
  if (*seed_sd <= 0) return "the seeds of every cell have equal results: are they the same run?";
  return "";
}

common::Result<Selection> SelectCells(const RequestedCells& requested, const std::vector<std::string>& wanted_tasks) {
  Selection selection;
  LeftOutList left_out({});
  Grouper grouper(&selection);
  for (const records::Record* record : requested.cells) {
    const std::string reason = WhyLeftOut(*record, requested);
    if (!reason.empty()) {
      left_out.Add(*record, "all", reason);
    } else if (const records::Record* first = grouper.Add(*record)) {
      left_out.Add(*record, "all", "the same architecture, size and seed as " + first->Name() + ": a seed counts once");
    }
  }
  selection.left_out = left_out.entries();
  const records::TaskScores together = ScoresTogether(selection.groups);
  if (wanted_tasks.empty()) {
    selection.downstream = DefaultDownstream(together);
  } else {
    ALLO_ASSIGN_OR_RETURN(selection.downstream, WantedDownstream(together, wanted_tasks));
  }
  return selection;
}

std::vector<std::string> TasksOf(const std::vector<CellGroup>& groups) {
  std::set<std::pair<int, std::string>> tasks;
  for (const CellGroup& group : groups) {
    for (const records::Record* cell : group.cells)
      for (const auto& [task, score] : cell->scores) tasks.emplace(TaskOrder(task), task);
  }
  std::vector<std::string> names;
  for (const auto& [order, task] : tasks) names.push_back(task);
  return names;
}

std::vector<std::string> KnownScores(const std::vector<CellGroup>& groups) {
  return KnownScores(ScoresTogether(groups));
}

common::Status CheckQuality(const std::string& quality, const Selection& selection) {
  if (quality == "upstream" || quality == "downstream") return common::Ok();
  std::vector<std::string> known = KnownScores(selection.groups);
  if (std::ranges::count(known, quality) > 0) return common::Ok();
  known.insert(known.end(), {"upstream", "downstream"});
  const std::string near = common::NearestName(quality, known);
  return common::InvalidArgument("unknown quality '" + quality +
                                 "': use upstream, downstream, a task of these cells or an average" +
                                 (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

common::Result<RequestedCells> FilteredCells(const records::Table& table, const std::string& filter,
                                             const std::vector<std::string>& exclude) {
  ALLO_ASSIGN_OR_RETURN(const records::Filter parsed, records::Filter::Parse(filter));
  RequestedCells requested{records::Select(table, parsed), {}};
  ALLO_ASSIGN_OR_RETURN(requested.excluded, records::FindNamed(requested.cells, exclude));
  return requested;
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
  if (seen_.emplace(&record, measure).second) entries_.push_back({record.Name(), measure, reason});
}

}  // namespace allometry::analysis
