#include "records/records.h"

namespace allometry::records {

const char* CellStateName(CellState state) {
  switch (state) {
    case CellState::kDone: return "done";
    case CellState::kFailed: return "failed";
    case CellState::kDiverged: return "diverged";
    case CellState::kUnfinished: return "unfinished";
  }
  return "unfinished";
}

}  // namespace allometry::records
