#include "cli/export_rows.h"

#include <map>

#include "common/atomic_file.h"
#include "common/files.h"
#include "coordinator/store/reader.h"

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

using Take = std::function<common::Status(const std::string&)>;

common::Status FromCoordinator(const ExportSource& source, const std::string& format, const Take& take) {
  grpc::ClientContext context;
  source.client->Prepare(&context);
  v1::ExportRequest request;
  request.set_sweep(source.sweep);
  request.set_what(source.what);
  request.set_format(format);
  const auto reader = source.client->sweeps().Export(&context, request);
  v1::ExportRow row;
  while (reader->Read(&row)) {
    if (const auto taken = take(row.text()); !taken) {
      context.TryCancel();
      reader->Finish();
      return taken;
    }
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? common::Ok() : common::Status(source.client->ErrorOf(status));
}

common::Status FromFile(const ExportSource& source, const std::string& format, const Take& take) {
  ALLO_ASSIGN_OR_RETURN(const auto reader, coordinator::store::Reader::Open(source.database));
  ALLO_ASSIGN_OR_RETURN(const auto exporter,
                        coordinator::store::Exporter::Start(reader.get(), source.what, source.sweep));
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const auto text, exporter->NextText(format));
    if (!text) return common::Ok();
    ALLO_RETURN_IF_ERROR(take(*text));
  }
}

}  // namespace

common::Result<std::vector<Json>> ReadExport(const ExportSource& source) {
  std::vector<Json> rows;
  const auto take = [&](const std::string& text) -> common::Status {
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      ALLO_ASSIGN_OR_RETURN(Json row, common::ParseJson(text.substr(begin, end - begin), "a row of the export"));
      rows.push_back(std::move(row));
    }
    return common::Ok();
  };
  ALLO_RETURN_IF_ERROR(StreamExport(source, "jsonl", take));
  return rows;
}

common::Status StreamExport(const ExportSource& source, const std::string& format,
                            const std::function<common::Status(const std::string&)>& take) {
  return source.client ? FromCoordinator(source, format, take) : FromFile(source, format, take);
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
  for (const char* what : {"cells", "scores"}) {
    ALLO_ASSIGN_OR_RETURN(const auto rows, ReadExport({.client = &client, .sweep = sweep, .what = what}));
    const std::string csv = common::Render(RowsTable(rows, what), common::OutputFormat::kCsv, 0);
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder / (std::string(what) + ".csv"), csv));
  }
  ALLO_ASSIGN_OR_RETURN(auto metrics, common::AtomicFile::Create(folder / "metrics.csv"));
  ALLO_RETURN_IF_ERROR(StreamExport({.client = &client, .sweep = sweep, .what = "metrics"}, "csv",
                                    [&](const std::string& text) { return metrics.Append(text); }));
  return metrics.Commit();
}

}  // namespace allometry::cli
