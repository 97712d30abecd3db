#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "common/result.h"

// The read-only view of cells that analysis, reports and exports work on, wherever the cells came from. Plain values:
// nothing here is shared between threads unless the caller shares it.
namespace allometry::records {

enum class CellState { kDone, kFailed, kDiverged, kUnfinished };
const char* CellStateName(CellState state);
common::Result<CellState> ParseCellState(std::string_view name);

// One downstream task's score. Fractions as metrics are: 0 … 1, correlations -1 … 1.
struct Score {
  double value = 0;  // the mean of the metrics
  std::optional<double> standard_error;
  std::optional<double>
      majority;  // what answering the most frequent class scores; absent where there is no such answer
  int64_t examples = 0;
  bool at_chance = false;                              // within two standard errors of the majority class
  std::string benchmark = {};                          // "glue", "superglue", "squad", "wordnet", "own"; "": not said
  bool in_average = true;                              // false: shown, and left out of the mean of tasks
  std::map<std::string, double> metrics = {};          // by name
  std::map<std::string, double> standard_errors = {};  // of the metrics
  int64_t unparsed = 0;                                // answers that are none of the labels
  std::string decoding = {};                           // "greedy" or "rank"; "": not said
  std::string split = {};                              // what was scored
  bool selected_on_test = false;                       // the checkpoint was chosen by the very examples that are scored
};
using TaskScores = std::map<std::string, Score>;  // by task

// One pretraining cell with the scores of its fine-tuning.
struct Record {
  std::string sweep;
  std::string cell;  // "<architecture>-<size>-s<seed>", unique within its sweep
  std::string architecture;
  std::string size;
  std::string shape;  // what else tells two rows of one size apart ("" when nothing does)
  uint64_t seed = 0;
  CellState state = CellState::kUnfinished;
  std::string reason;  // why it is not done: the last error, one line
  // Fine-tuning; absent when the sweep has none. Its scores are there only when it is done.
  std::optional<CellState> finetune_state;
  std::string finetune_reason;
  std::string device;  // model of the device that trained it; times are compared on equal devices only
  // The well-known metrics of docs/trainer-contract.md, plus the costs that arch/ computes: forward_flops,
  // forward_flops_without_head, mtf_multiply_adds, six_nd, training_flops, parameters, ...
  std::map<std::string, double> metrics;
  TaskScores scores;
  std::map<std::string, std::string> tags;
  std::optional<std::string> excluded;  // the user's reason for leaving the cell out

  std::string Name() const { return sweep.empty() ? cell : sweep + "/" + cell; }
};

using Table = std::vector<Record>;

// Conditions on records: "architecture=glu,size=base,seed=1,state=done,sweep=tay,cell=x,tag.k=v". Different keys must
// all hold; of one key given several times, one value must. The empty filter holds for every record.
class Filter {
 public:
  static common::Result<Filter> Parse(std::string_view text);
  bool Holds(const Record& record) const;

 private:
  std::map<std::string, std::vector<std::string>> wanted_;
};

// Records of a table without a copy of them: they point into it, and it must outlive them.
using View = std::vector<const Record*>;

View Select(const Table& table, const Filter& filter);

// The records with these names ("cell" or "sweep/cell"), a name for all that have it. kNotFound for one that no record
// has.
common::Result<std::unordered_set<const Record*>> FindNamed(const View& records, const std::vector<std::string>& names);

}  // namespace allometry::records
