#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "common/result.h"
#include "records/records.h"

// What a cell costs and how good it is, in the conventions of docs/science.md, and which cells take part at all.
namespace allometry::analysis {

enum class Axis { kFlops, kParameters, kUpstream, kDownstream, kSeconds };
enum class Transform { kSemilog, kLoglog };
enum class FlopConvention { kForward, kForwardWithoutHead, kMtf, kSixNd, kTraining };
enum class ParameterConvention { kTotal, kNonEmbedding, kActive };

const char* AxisName(Axis axis);    // "flops", "parameters", "upstream", "downstream", "seconds"
const char* AxisLetter(Axis axis);  // "F", "P", "U", "D", "s"
const char* TransformName(Transform transform);
const char* FlopConventionName(
    FlopConvention convention);  // "forward", "forward_without_head", "mtf", "six_nd", "training"
const char* ParameterConventionName(ParameterConvention convention);  // "total", "non_embedding", "active"
// The empty name is the default: semilog, forward, total.
common::Result<Transform> ParseTransform(std::string_view name);
common::Result<FlopConvention> ParseFlopConvention(std::string_view name);
common::Result<ParameterConvention> ParseParameterConvention(std::string_view name);
// Name of the metric in records::Record::metrics.
const char* MetricOf(FlopConvention convention);
const char* MetricOf(ParameterConvention convention);

// A cell that took no part, in all measures ("all") or in one ("upstream", "downstream", a task, ...), and why.
struct LeftOut {
  std::string cell;
  std::string measure;
  std::string reason;
};

// A number, or why there is none.
struct Measured {
  std::optional<double> value;
  std::string missing;
};

// What D is, one definition for a whole set of cells so that they can be compared: of which scores it is the mean.
struct Downstream {
  enum class Definition { kTasks, kBenchmarks, kWanted };  // all tasks, whole benchmarks, what the request named
  Definition definition = Definition::kTasks;
  std::vector<std::string> parts;  // tasks, or averages by their names (benchmarks.h)
  // What a reader should know of the choice, for instance which scores are not in it; "" if nothing.
  std::string note;
};
const char* DefinitionName(Downstream::Definition definition);  // "tasks", "benchmarks", "wanted"

// How to read a record's axes. U is minus the validation loss in nats per target token; D the mean of some scores; the
// rest are positive numbers as recorded.
struct MeasureOptions {
  FlopConvention flops = FlopConvention::kForward;
  ParameterConvention parameters = ParameterConvention::kTotal;
  std::vector<std::string> tasks;  // Downstream::parts
};

// The size as results name it: with the shape in parentheses where a record has one.
std::string SizeLabel(const records::Record& record);
// A metric of the record that must be finite, between 1e-60 and 1e60 in size if it is not zero, and positive when
// asked.
Measured MetricValue(const records::Record& record, const std::string& name, bool positive);
// Why a cell lacks these scores: it is not fine-tuned, its fine-tuning failed or is not done, or they are not in it.
std::string WhyNoScore(const records::Record& record, const std::vector<std::string>& names);
// The score of a task, or an average by its name.
Measured TaskValue(const records::Record& record, const std::string& task);
// Whether one of the tasks is at chance; of an average, whether all of its tasks are.
bool IsAtChance(const records::Record& record, const std::vector<std::string>& tasks);
Measured AxisValue(const records::Record& record, Axis axis, const MeasureOptions& options);

// A quality by the name that a request gives it: "upstream", "downstream", a task or an average; higher is better.
// `parts` are those of D.
Measured QualityValue(const records::Record& record, const std::string& quality, const std::vector<std::string>& parts);
// The tasks whose scores make up a quality; none for "upstream".
std::vector<std::string> QualityTasks(const std::string& quality, const std::vector<std::string>& parts);

// Of requests with draws: kInvalidArgument unless 0 to 10,000,000 draws and, if given, a positive seed sd.
common::Status CheckDraws(int draws, const std::optional<double>& seed_sd);
// Why a pooled seed sd gives no probabilities; empty if it does.
std::string WhyNoProbability(const std::optional<double>& seed_sd, int draws);

// The cells of one architecture at one size: equal but for their seeds.
struct CellGroup {
  std::string architecture;
  std::string size;  // with the shape in parentheses where a record has one
  std::vector<const records::Record*> cells;
};

// Architectures in the order of the table, each with its sizes in the order of the table.
struct Selection {
  std::vector<std::string> architectures;
  std::vector<CellGroup> groups;
  std::vector<LeftOut> left_out;
  Downstream downstream;
};

// The records that a request is about: those that its filter keeps, and which of them the user leaves out. They point
// into the table that they were taken from.
struct RequestedCells {
  records::View cells;
  std::unordered_set<const records::Record*> excluded;
};
common::Result<RequestedCells> FilteredCells(const records::Table& table, const std::string& filter,
                                             const std::vector<std::string>& exclude);

// Leaves out cells that are not done, that the user excluded, and second cells of the same architecture, size and seed:
// a seed counts once. The result points into the table.
//
// D is the mean of the wanted tasks and averages. If none is wanted and the cells' scores, taken together, are whole
// benchmarks (of none of them a part), it is the mean of those benchmarks' averages: with all three, the D of Tay et
// al. Else it is the mean of all tasks that any cell has, but for those that a trainer keeps out of averages.
// kInvalidArgument for a task or an average that no cell has.
common::Result<Selection> SelectCells(const RequestedCells& requested, const std::vector<std::string>& wanted_tasks);

// Every task that some cell has a score of, the benchmarks' in their order and then the others by name.
std::vector<std::string> TasksOf(const std::vector<CellGroup>& groups);

// Every task that some cell has a score of, and the averages that their scores together are enough for.
std::vector<std::string> KnownScores(const std::vector<CellGroup>& groups);

// kInvalidArgument for a quality that QualityValue does not know in any of these cells.
common::Status CheckQuality(const std::string& quality, const Selection& selection);

// The error for a selection without any usable cell: it says what became of the cells.
common::Error NoCells(const Selection& selection);

// The devices that trained these cells; two or more mean that their times cannot be compared.
std::set<std::string> DevicesOf(const std::vector<const records::Record*>& cells);

// Why a cell takes no part in a measure: an axis, a cost, a task or an average.
struct Omission {
  const records::Record* cell = nullptr;
  std::string measure, reason;
};

// Collects left-out cells once per cell and measure.
class LeftOutList {
 public:
  explicit LeftOutList(std::vector<LeftOut> first) : entries_(std::move(first)) {}
  void Add(const records::Record& record, const std::string& measure, const std::string& reason);
  const std::vector<LeftOut>& entries() const& { return entries_; }
  std::vector<LeftOut> entries() && { return std::move(entries_); }

 private:
  std::vector<LeftOut> entries_;
  std::set<std::pair<const records::Record*, std::string>> seen_;
};

}  // namespace allometry::analysis
