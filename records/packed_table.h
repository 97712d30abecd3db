#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"
#include "records/records.h"

namespace allometry::records {

// A table as column `data` of the database's table `imported` holds it: zlib over JSON lines.
struct PackedTable {
  std::string data;
  int64_t bytes = 0;  // unpacked
};
PackedTable PackTable(const Table& table);

// kDataLoss when the data are not of that form.
common::Result<Table> UnpackTable(std::string_view data, int64_t bytes);

}  // namespace allometry::records
