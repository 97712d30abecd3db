#include "coordinator/rpc/imports.h"

#include <optional>

#include "common/clock.h"
#include "common/files.h"
#include "coordinator/core/core.h"
#include "coordinator/grid/check.h"
#include "coordinator/rpc/analysis_messages.h"
#include "coordinator/store/store.h"
#include "records/import.h"
#include "records/packed_table.h"

namespace allometry::coordinator {
namespace {

using common::Result;

constexpr size_t kMostBytes = 60 << 20;

Result<records::Import> Parse(const v1::ImportRequest& request) {
  ALLO_ASSIGN_OR_RETURN(records::ColumnMapping mapping, records::ParseColumnMapping(request.mapping()));
  if (mapping.columns.contains("sweep") || mapping.constants.contains("sweep"))
    return common::InvalidArgument("the runs are kept under the import's name: map no sweep");
  mapping.constants["sweep"] = request.name();
  const std::string where = request.source().empty() ? "the table" : request.source();
  if (request.format() == "csv") return records::ImportCsv(request.text(), mapping, where);
  if (request.format() == "jsonl") return records::ImportJsonLines(request.text(), mapping, where);
  return common::InvalidArgument("unknown format '" + request.format() + "': use csv or jsonl");
}

// A core of its own on a file, for one event.
class NoOutbox final : public Outbox {
  void SendOrders(int64_t, v1::SyncResponse) override {}
  void WatchReady(int64_t) override {}
};

// Where a coordinator's data directory is, its lock is taken.
common::Status RunOnFile(const std::filesystem::path& database, const std::function<void(Core&)>& event) {
  std::optional<common::FileLock> lock;
  const std::filesystem::path lock_file = std::filesystem::absolute(database).parent_path() / "lock";
  if (std::filesystem::exists(lock_file)) {
    auto taken = common::FileLock::Acquire(lock_file);
    if (!taken)
      return common::FailedPrecondition("a coordinator has '" + database.string() +
                                        "': import through it, without a database file");
    lock = std::move(*taken);
  }
  ALLO_ASSIGN_OR_RETURN(auto store, store::Store::Open(database));
  NoOutbox outbox;
  CoreOptions options;
  options.now_boot_ms = common::BootMillis;
  options.now_unix_ms = common::UnixMillis;
  options.has_blob = [](const std::string&) { return false; };
  ALLO_ASSIGN_OR_RETURN(const auto core, Core::Open(std::move(store), options, &outbox));
  event(*core);
  return core->CommitBatch();
}

}  // namespace

Result<ReadyImport> ReadImport(const v1::ImportRequest& request) {
  if (!IsName(request.name()))
    return common::InvalidArgument("the import is called '" + request.name() +
                                   "'; a name has up to 64 letters, digits, '.', '_' and '-', and starts with a "
                                   "letter, a digit or '_'");
  if (request.text().size() > kMostBytes)
    return common::InvalidArgument("the table has " + std::to_string(request.text().size()) + " bytes; at most " +
                                   std::to_string(kMostBytes) + " can be imported at once: split it");
  ALLO_ASSIGN_OR_RETURN(records::Import import, Parse(request));
  records::PackedTable packed = records::PackTable(import.table);
  ReadyImport ready;
  ready.row = {.name = request.name(),
               .source = request.source(),
               .mapping = request.mapping(),
               .runs = static_cast<int64_t>(import.table.size()),
               .data = std::move(packed.data),
               .bytes = packed.bytes};
  ready.response.set_runs(ready.row.runs);
  for (const std::string& column : import.unused_columns) ready.response.add_unused_columns(column);
  for (const std::string& note : import.notes) ready.response.add_notes(note);
  return ready;
}

Result<v1::ImportResponse> ImportIntoFile(const std::filesystem::path& database, const v1::ImportRequest& request) {
  ALLO_ASSIGN_OR_RETURN(ReadyImport ready, ReadImport(request));
  Result<int64_t> imported = common::Internal("no answer");
  ALLO_RETURN_IF_ERROR(RunOnFile(database, [&](Core& core) {
    core.Import(std::move(ready.row), request.replace(), [&](Result<int64_t> runs) { imported = std::move(runs); });
  }));
  if (!imported) return imported.error();
  return ready.response;
}

common::Status RemoveImportFromFile(const std::filesystem::path& database, const std::string& name) {
  Result<int64_t> removed = common::Internal("no answer");
  ALLO_RETURN_IF_ERROR(RunOnFile(database, [&](Core& core) {
    core.RemoveImport(name, [&](Result<int64_t> result) { removed = std::move(result); });
  }));
  return removed ? common::Ok() : common::Status(removed.error());
}

}  // namespace allometry::coordinator
