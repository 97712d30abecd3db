#include "worker/trainer/tasks/tsv_reader.h"

#include <algorithm>

namespace allometry::trainer {

common::Result<TsvReader> TsvReader::Open(const TaskFiles& files, std::string_view task, std::string_view file,
                                          BadRows bad_rows, std::vector<std::string> columns) {
  ALLO_ASSIGN_OR_RETURN(TaskLines lines, TaskLines::Open(files, task, file, bad_rows));
  TsvReader reader(std::move(lines));
  reader.columns_ = std::move(columns);
  if (!reader.columns_.empty()) return reader;
  ALLO_ASSIGN_OR_RETURN(const bool any, reader.lines_.Next(&reader.line_));
  if (!any) return common::DataLoss(std::string(task) + " '" + std::string(file) + "': the file is empty");
  reader.Split();
  for (std::string_view name : reader.fields_) reader.columns_.emplace_back(name);
  return reader;
}

std::optional<size_t> TsvReader::ColumnIfThere(std::string_view name) const {
  const auto found = std::ranges::find(columns_, name);
  if (found == columns_.end()) return std::nullopt;
  return static_cast<size_t>(found - columns_.begin());
}

common::Result<size_t> TsvReader::Column(std::string_view name) const {
  if (const auto column = ColumnIfThere(name)) return *column;
  std::string there;
  for (const std::string& column : columns_) there += (there.empty() ? "" : ", ") + column;
  return lines_.Wrong("the header has no column '" + std::string(name) + "'; it has: " + there);
}

void TsvReader::Split() {
  fields_.clear();
  std::string_view rest = line_;
  for (size_t tab = rest.find('\t'); tab != rest.npos; tab = rest.find('\t')) {
    fields_.push_back(rest.substr(0, tab));
    rest.remove_prefix(tab + 1);
  }
  fields_.push_back(rest);
}

bool TsvReader::DropEmptyColumns() {
  const auto empty = static_cast<size_t>(std::ranges::count(fields_, std::string_view()));
  if (fields_.size() - empty != columns_.size()) return false;
  std::erase(fields_, std::string_view());
  return true;
}

common::Result<bool> TsvReader::Next() {
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, lines_.Next(&line_));
    if (!more) return false;
    ++row_;
    Split();
    if (fields_.size() == columns_.size()) return true;
    if (mend_doubled_tabs_ && fields_.size() > columns_.size() && DropEmptyColumns()) {
      ++mended_rows_;
      return true;
    }
    if (fields_.size() < columns_.size() && skip_short_rows_) {
      ++short_rows_;
      continue;
    }
    ALLO_RETURN_IF_ERROR(Bad("the row has " + std::to_string(fields_.size()) + " columns, and there should be " +
                             std::to_string(columns_.size())));
  }
}

void TsvReader::AddCounts(const std::string& split, std::map<std::string, int64_t>* counts) const {
  lines_.AddCounts(split, counts);
  AddCount(counts, split + "_rows_with_missing_columns", short_rows_);
  AddCount(counts, split + "_rows_with_surplus_empty_columns", mended_rows_);
}

}  // namespace allometry::trainer
