#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "analysis/benchmarks.h"
#include "analysis/measures.h"
#include "common/result.h"
#include "records/records.h"

// The downstream scores of a study side by side, with the benchmarks' averages (docs/science.md, "Averages"). Pure
// functions.
namespace allometry::analysis {

struct ScoresRequest {
  std::string filter;                // as records::Filter
  std::vector<std::string> exclude;  // cell names; reported as left out by the user
  bool mean_over_seeds = false;      // a row an architecture and size, else a row a cell
  AverageOptions averages;
};

// One score of a row, or the mean of its seeds' scores.
struct ScoreValue {
  std::optional<double> value;           // absent in a row that lacks it
  std::optional<double> spread;          // sample standard deviation between two or more seeds
  std::optional<double> standard_error;  // of one cell; absent of means, whose seeds are scored on the same examples
  int seeds = 0;                         // that have it
  int64_t examples = 0;                  // of a task: that one cell was scored on
  std::optional<double> unparsed;        // of a task: share of the answers that are none of the labels
  int tasks = 0;                         // that it is made of
  int tasks_at_chance = 0;               // of them, in the seed with most
  bool at_chance = false;                // in some seed; of an average, all of its tasks in that seed
  bool selected_on_test = false;         // in some seed, some of its tasks
  std::string decoding, split;           // of a task
};

struct ScoreColumn {
  std::string name;      // a task; or "glue", "superglue", "squad", "downstream" (D), "tasks" (mean of the seventeen)
  bool average = false;  // tells the task `squad` from the benchmark
};

struct ScoredRow {
  std::string cell;  // "<architecture>-<size>-s<seed>", or without the seed
  std::string architecture, size;
  std::optional<uint64_t> seed;    // absent of means
  std::vector<ScoreValue> scores;  // one a column
};

struct ScoresResult {
  // The tasks in the benchmarks' order, others behind them by name; then those averages that some row has.
  std::vector<ScoreColumn> columns;
  std::vector<ScoredRow> rows;  // that have any score
  Downstream downstream;
  std::vector<LeftOut> left_out;  // also rows that lack an average, with the average as the measure
};

// kInvalidArgument: an unknown filter key; kNotFound: an unknown excluded cell; kFailedPrecondition: no scores at all.
common::Result<ScoresResult> Scores(const records::Table& table, const ScoresRequest& request);

}  // namespace allometry::analysis
