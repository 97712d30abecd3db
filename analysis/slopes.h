#pragma once

#include <optional>
#include <string>
#include <vector>

#include "analysis/line.h"
#include "analysis/measures.h"
#include "common/result.h"
#include "records/records.h"

// Scaling slopes per architecture (docs/science.md, "Slopes"; the study is Tay et al. 2022, arXiv 2207.10551). Pure
// functions.
namespace allometry::analysis {

struct SlopesRequest {
  std::string filter;                // as records::Filter
  std::vector<std::string> exclude;  // cell names; reported as left out by the user
  Transform transform = Transform::kSemilog;
  FlopConvention flops = FlopConvention::kForward;
  ParameterConvention parameters = ParameterConvention::kTotal;
  double confidence = 0.95;        // in (0.5, 1)
  std::string baseline;            // differences to this architecture; "": none, "*": all pairs, up to 10,000
  std::vector<std::string> tasks;  // what D averages, tasks or averages; empty: as SelectCells chooses
  bool per_task = false;           // the slopes of each task too
};

// One size on the line, after the transform, averaged over its seeds.
struct SizePoint {
  std::string size;
  double x = 0, y = 0;
  std::optional<double> y_sd;  // between seeds; absent with one seed
  int seeds = 0;
};

struct Slope {
  Axis x, y;
  SlopeEstimate estimate;
  std::vector<SizePoint> points;
  std::vector<SizeSamples> samples;          // what the estimate was made from, in the order of `points`
  std::vector<std::string> at_chance_cells;  // whose downstream score is at chance; they are part of the estimate
  int cells = 0;
  std::string task;     // of a slope of one task, which takes the place of D: y is then Axis::kDownstream
  std::string devices;  // of a slope over seconds: where the times were taken
};

struct ArchitectureSlopes {
  std::string architecture;
  std::vector<Slope> slopes;  // (F,U) (F,D) (P,U) (P,D) (U,D) (s,U) (s,D)
};

// The slopes of one task: (F,task) (P,task) (U,task) per architecture, in the order of SlopesResult::architectures.
struct TaskSlopes {
  std::string task;
  std::vector<ArchitectureSlopes> architectures;
};

// first minus second, for one pair of axes.
struct SlopeComparison {
  Axis x, y;
  std::string task;  // as in Slope
  std::string first, second;
  std::optional<double> difference;  // absent when a slope is refused
  std::optional<Interval> seed_interval, line_interval;
  std::optional<double> p_seeds, p_line;  // two-sided
  // Adjusted over all comparisons of this pair of axes; of tasks, over all of them together.
  std::optional<double> p_seeds_holm, p_line_holm;
  // "differs (seeds)", "differs (seeds and sizes)", "no difference shown" or "no verdict".
  std::string verdict;
  std::string reason;  // of "no verdict"
  bool ranges_differ = false;
  std::optional<SharedCurvature> shared_curvature;  // where curvature and ranges forbid a verdict
};

struct SlopesResult {
  SlopesRequest request;
  Downstream downstream;
  std::string reference;  // whose ranges the flag `ranges differ` compares with
  std::vector<ArchitectureSlopes> architectures;
  std::vector<SlopeComparison> comparisons;
  // When asked for: every task that some cell has a score of, the benchmarks' in their order, then the others by name.
  std::vector<TaskSlopes> tasks;
  std::vector<SlopeComparison> task_comparisons;  // by axes, then by task
  // A cell without any score is here once, under "downstream", and not once a task.
  std::vector<LeftOut> left_out;
};

// kInvalidArgument: an unknown task or filter key, a confidence out of range, over 10,000 pairs to compare; kNotFound:
// an unknown baseline or excluded cell; kFailedPrecondition: no usable cell at all. A slope that cannot be had is in
// the result, with its `refused`.
common::Result<SlopesResult> Slopes(const records::Table& table, const SlopesRequest& request);

// The slope of one pair of axes, or null if the architecture has none.
const Slope* FindSlope(const ArchitectureSlopes& architecture, Axis x, Axis y);

}  // namespace allometry::analysis
