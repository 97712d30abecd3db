#include "records/sqlite_reading.h"

#include <algorithm>
#include <stdexcept>

#include "common/ids.h"
#include "sql/migrations.h"

namespace allometry::records {
namespace {

using common::Result;
using common::Status;
namespace fs = std::filesystem;

constexpr int kBusyTimeoutMs = 5000;
constexpr int64_t kImportedSince = 5;  // schema

common::Error ReadError(sqlite3* handle, int code) {
  const std::string reason = handle ? sqlite3_errmsg(handle) : sqlite3_errstr(code);
  if (code == SQLITE_NOTADB) return common::FailedPrecondition("not a database of this program: " + reason);
  return common::Unavailable("cannot read the database: " + reason);
}

Result<DatabaseHandle> OpenUri(const std::string& uri) {
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(uri.c_str(), &raw, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, nullptr);
  DatabaseHandle handle(raw);
  if (code != SQLITE_OK) return ReadError(raw, code);
  sqlite3_busy_timeout(raw, kBusyTimeoutMs);
  return handle;
}

// A path as SQLite's URI; what has a meaning there is escaped.
std::string UriOf(const fs::path& path) {
  std::string uri = "file:";
  for (char c : fs::absolute(path).string()) {
    if (c == '?')
      uri += "%3f";
    else if (c == '#')
      uri += "%23";
    else if (c == '%')
      uri += "%25";
    else
      uri += c;
  }
  return uri;
}

Result<int64_t> UserVersion(sqlite3* handle) {
  ALLO_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(handle, "PRAGMA user_version"));
  ALLO_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Int(0) : 0;
}

Status CheckVersion(sqlite3* handle, const fs::path& path) {
  ALLO_ASSIGN_OR_RETURN(const int64_t version, UserVersion(handle));
  const auto newest = static_cast<int64_t>(sql::kMigrations.size());
  if (version == 0) return common::FailedPrecondition("'" + path.string() + "' is not a database of this program");
  if (version <= newest) return common::Ok();
  return common::FailedPrecondition("'" + path.string() + "' has schema " + std::to_string(version) +
                                    ", and this program knows schemas up to " + std::to_string(newest) +
                                    ": use a newer program");
}

// A database in WAL mode wants its shared-memory file even from readers. In a folder that cannot be written there is
// none, and then, without a log that holds anything, the file itself is all there is and may be read as it stands.
bool MayReadAsItStands(const fs::path& path) {
  std::error_code error;
  fs::path log = path;
  log += "-wal";
  const auto bytes = fs::file_size(log, error);
  return error || bytes == 0;
}

Result<std::vector<SweepRow>> AllSweeps(sqlite3* handle) {
  ALLO_ASSIGN_OR_RETURN(Statement rows, Statement::Prepare(handle,
                                                           "SELECT sweep_id, name, tags_json FROM sweeps "
                                                           "WHERE state <> 'expanding' ORDER BY sweep_id"));
  std::vector<SweepRow> sweeps;
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (!row) return sweeps;
    sweeps.push_back({rows.Int(0), false, rows.Text(1), rows.JsonAt(2).get<std::map<std::string, std::string>>()});
  }
}

// None of a database that is older than imports.
Status AddImported(sqlite3* handle, std::vector<SweepRow>* sweeps) {
  ALLO_ASSIGN_OR_RETURN(const int64_t version, UserVersion(handle));
  if (version < kImportedSince) return common::Ok();
  ALLO_ASSIGN_OR_RETURN(Statement rows, Statement::Prepare(handle, "SELECT name FROM imported ORDER BY name"));
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (!row) return common::Ok();
    sweeps->push_back({0, true, rows.Text(0), {}});
  }
}

}  // namespace

Result<Statement> Statement::Prepare(sqlite3* handle, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(handle, sql, -1, &statement, nullptr);
  if (code == SQLITE_ERROR) throw std::logic_error(std::string("bad SQL: ") + sqlite3_errmsg(handle) + " in " + sql);
  if (code != SQLITE_OK) return ReadError(handle, code);
  return Statement(handle, statement);
}

Result<bool> Statement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return ReadError(handle_, code);
}

std::string Statement::Text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column))) : "";
}

Status BeginReading(sqlite3* handle) {
  const int code = sqlite3_exec(handle, "BEGIN", nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return ReadError(handle, code);
  return common::Ok();
}

void EndReading(sqlite3* handle) { sqlite3_exec(handle, "COMMIT", nullptr, nullptr, nullptr); }

Result<DatabaseHandle> OpenForReading(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return common::NotFound("there is no database '" + path.string() + "'");
  ALLO_ASSIGN_OR_RETURN(DatabaseHandle handle, OpenUri(UriOf(path)));
  if (!UserVersion(handle.get()) && sqlite3_errcode(handle.get()) == SQLITE_CANTOPEN && MayReadAsItStands(path)) {
    ALLO_ASSIGN_OR_RETURN(handle, OpenUri(UriOf(path) + "?immutable=1"));
  }
  ALLO_RETURN_IF_ERROR(CheckVersion(handle.get(), path));
  return handle;
}

Result<std::vector<SweepRow>> WantedSweeps(sqlite3* handle, const std::vector<std::string>& names) {
  ALLO_ASSIGN_OR_RETURN(std::vector<SweepRow> sweeps, AllSweeps(handle));
  ALLO_RETURN_IF_ERROR(AddImported(handle, &sweeps));
  if (names.empty()) return sweeps;
  std::vector<SweepRow> wanted;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(sweeps, name, &SweepRow::name);
    if (found == sweeps.end()) {
      std::vector<std::string> known;
      for (const SweepRow& sweep : sweeps) known.push_back(sweep.name);
      const std::string near = common::NearestName(name, known);
      return common::NotFound("there is no sweep '" + name + "'" +
                              (near.empty() ? "" : " (did you mean '" + near + "'?)"));
    }
    if (std::ranges::find(wanted, name, &SweepRow::name) == wanted.end()) wanted.push_back(*found);
  }
  return wanted;
}

}  // namespace allometry::records
