#include "records/packed_table.h"

#include <zlib.h>

#include <sstream>
#include <stdexcept>

#include "records/table_io.h"

namespace allometry::records {

PackedTable PackTable(const Table& table) {
  std::ostringstream lines;
  WriteJsonLines(table, lines);
  const std::string text = lines.str();
  PackedTable packed{{}, static_cast<int64_t>(text.size())};
  uLongf size = compressBound(text.size());
  packed.data.resize(size);
  const int code = compress2(reinterpret_cast<Bytef*>(packed.data.data()), &size,
                             reinterpret_cast<const Bytef*>(text.data()), text.size(), Z_BEST_SPEED);
  if (code != Z_OK) throw std::runtime_error("zlib cannot pack a table: code " + std::to_string(code));
  packed.data.resize(size);
  return packed;
}

common::Result<Table> UnpackTable(std::string_view data, int64_t bytes) {
  constexpr int64_t kMostBytes = int64_t{1} << 32;
  if (bytes < 0 || bytes > kMostBytes) return common::DataLoss("an imported table has an impossible length");
  std::string text(static_cast<size_t>(bytes), '\0');
  uLongf size = text.size();
  const int code = uncompress(reinterpret_cast<Bytef*>(text.data()), &size, reinterpret_cast<const Bytef*>(data.data()),
                              data.size());
  if (code != Z_OK || size != text.size()) return common::DataLoss("an imported table is damaged");
  std::istringstream lines(std::move(text));
  return ReadJsonLines(lines, "imported table");
}

}  // namespace allometry::records
