#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "worker/trainer/tasks/task_lines.h"

namespace allometry::trainer {

// A file of tab-separated columns as GLUE writes them: no quoting, so a quotation mark is a letter like any other.
// Columns are found by the header's names. Not thread-safe.
class TsvReader {
 public:
  // `columns`: the names for a file without a header; otherwise the first line has them.
  static common::Result<TsvReader> Open(const TaskFiles& files, std::string_view task, std::string_view file,
                                        BadRows bad_rows, std::vector<std::string> columns = {});

  // The column's position. kDataLoss names the columns that are there.
  common::Result<size_t> Column(std::string_view name) const;
  std::optional<size_t> ColumnIfThere(std::string_view name) const;

  // Rows with too few columns are passed over and counted, not an error.
  void SkipShortRows() { skip_short_rows_ = true; }
  // A row with too many columns that fits without its empty ones is taken so, and counted.
  void MendDoubledTabs() { mend_doubled_tabs_ = true; }

  // The next row; false at the end. kDataLoss: it has not as many columns as the header, and bad rows are errors.
  common::Result<bool> Next();
  std::string_view Field(size_t column) const { return fields_[column]; }   // until the next call of Next
  int64_t row() const { return row_; }                                      // number of the row, from 0
  common::Status Bad(const std::string& what) { return lines_.Bad(what); }  // the row is bad: OK if it is passed over

  // Adds what was left out or mended, each name beginning with the split's.
  void AddCounts(const std::string& split, std::map<std::string, int64_t>* counts) const;

 private:
  explicit TsvReader(TaskLines lines) : lines_(std::move(lines)) {}
  void Split();
  bool DropEmptyColumns();

  TaskLines lines_;
  std::vector<std::string> columns_;
  std::string line_;
  std::vector<std::string_view> fields_;  // of line_
  bool skip_short_rows_ = false, mend_doubled_tabs_ = false;
  int64_t row_ = -1, short_rows_ = 0, mended_rows_ = 0;
};

}  // namespace allometry::trainer
