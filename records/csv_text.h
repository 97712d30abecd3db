#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace allometry::records {

struct CsvLine {
  int number = 0;  // of the file's line on which it begins, from 1
  std::vector<std::string> fields;
};

// CSV as RFC 4180 has it, and as other programs write it: fields in quotes may hold commas, line breaks and doubled
// quotes; lines end in LF or CRLF; a byte order mark and empty lines are passed over. `where` begins an error's
// message, followed by the line. kInvalidArgument: a quote that is not closed, or is followed by more text.
common::Result<std::vector<CsvLine>> ParseCsv(std::string_view text, const std::string& where);

}  // namespace allometry::records
