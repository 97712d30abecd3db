#include "cli/export_rows.h"

#include <map>

#include "common/files.h"

namespace allometry::cli {
namespace {

using common::ColumnKind;
using common::Json;
using common::TableValue;

TableValue ValueOf(const Json& value) {
  if (value.is_null()) return {};
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  return value.dump();
}

// Integers in one row and fractions in another make a column of numbers.
ColumnKind KindOf(const Json& value, ColumnKind before) {
  if (value.is_boolean()) return ColumnKind::kBoolean;
  if (value.is_number_integer()) return before == ColumnKind::kNumber ? before : ColumnKind::kInteger;
  if (value.is_number()) return ColumnKind::kNumber;
  return ColumnKind::kText;
}

}  // namespace

common::Result<std::vector<Json>> ReadExport(Client& client, const std::string& sweep, const std::string& what) {
  grpc::ClientContext context;
  client.Prepare(&context);
  v1::ExportRequest request;
  request.set_sweep(sweep);
  request.set_what(what);
  const auto reader = client.sweeps().Export(&context, request);
  std::vector<Json> rows;
  v1::ExportRow row;
  while (reader->Read(&row)) {
    ALLO_ASSIGN_OR_RETURN(Json parsed, common::ParseJson(row.json(), "a row of the export"));
    rows.push_back(std::move(parsed));
  }
  if (const grpc::Status status = reader->Finish(); !status.ok()) return client.ErrorOf(status);
  return rows;
}

common::Table RowsTable(const std::vector<Json>& rows, const std::string& name) {
  common::Table table;
  table.name = name;
  std::map<std::string, size_t> place;
  for (const Json& row : rows)
    for (const auto& [key, value] : row.items()) {
      const auto [found, fresh] = place.try_emplace(key, table.columns.size());
      if (fresh) table.columns.push_back({key, "", "", ColumnKind::kInteger});
      common::Column& column = table.columns[found->second];
      if (!value.is_null() && (fresh || column.kind != ColumnKind::kText)) column.kind = KindOf(value, column.kind);
    }
  for (const Json& row : rows) {
    std::vector<TableValue> values(table.columns.size());
    for (const auto& [key, value] : row.items()) values[place[key]] = ValueOf(value);
    table.rows.push_back(std::move(values));
  }
  return table;
}

common::Status WriteExports(Client& client, const std::string& sweep, const std::filesystem::path& folder) {
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder));
  for (const char* what : {"cells", "scores", "metrics"}) {
    ALLO_ASSIGN_OR_RETURN(const auto rows, ReadExport(client, sweep, what));
    const std::string csv = common::Render(RowsTable(rows, what), common::OutputFormat::kCsv, 0);
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder / (std::string(what) + ".csv"), csv));
  }
  return common::Ok();
}

}  // namespace allometry::cli
