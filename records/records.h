#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

// The read-only view of cells that analysis, reports and exports work on, wherever the cells came from.
namespace allometry::records {

enum class CellState { kDone, kFailed, kDiverged, kUnfinished };
const char* CellStateName(CellState state);

// One downstream task's score; value, standard_error and majority are fractions in [0, 1].
struct Score {
  double value = 0;
  double standard_error = 0;
  double majority = 0;  // share of the majority class
  int64_t examples = 0;
  bool at_chance = false;
};

// One pretraining cell with the scores of its fine-tuning.
struct Record {
  std::string sweep;
  std::string cell;
  std::string architecture;
  std::string size;
  uint64_t seed = 0;
  CellState state = CellState::kUnfinished;
  // The well-known metrics of docs/trainer-contract.md, plus the costs that arch/ computes.
  std::map<std::string, double> metrics;
  std::map<std::string, Score> scores;
  std::optional<std::string> excluded;  // the user's reason for leaving the cell out
};

using Table = std::vector<Record>;

}  // namespace allometry::records
