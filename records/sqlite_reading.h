#pragma once

#include <sqlite3.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"

// How records/ reads a coordinator's database (sql/schema.md): a read-only connection, used by one thread at a time.
namespace allometry::records {

struct CloseDatabase {
  void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
};
using DatabaseHandle = std::unique_ptr<sqlite3, CloseDatabase>;

// Beside a live coordinator or without one, also from a folder that cannot be written. kNotFound: no such file;
// kFailedPrecondition: not an Allometry database, or one of a newer program; kUnavailable: locked or unreadable now.
common::Result<DatabaseHandle> OpenForReading(const std::filesystem::path& database);

// A transaction around what must be of one moment. Keep it short: an open reader lets the writer's log grow.
common::Status BeginReading(sqlite3* handle);
void EndReading(sqlite3* handle);

class Statement {
 public:
  // The SQL is the program's own: a mistake in it throws, unless the file is what is wrong.
  static common::Result<Statement> Prepare(sqlite3* handle, const char* sql);

  void Reset() { sqlite3_reset(statement_.get()); }
  void Bind(int index, int64_t value) { sqlite3_bind_int64(statement_.get(), index, value); }
  void Bind(int index, const std::string& value) {
    sqlite3_bind_text(statement_.get(), index, value.data(), static_cast<int>(value.size()), SQLITE_TRANSIENT);
  }
  // true: there is a row.
  common::Result<bool> Step();
  int64_t Int(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  bool IsNull(int column) const { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }
  std::string Text(int column) const;
  // null of NULL; throws Json::exception for text that is no JSON.
  common::Json JsonAt(int column) const { return IsNull(column) ? common::Json() : common::Json::parse(Text(column)); }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  Statement(sqlite3* handle, sqlite3_stmt* statement) : handle_(handle), statement_(statement) {}
  sqlite3* handle_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// A sweep, or a table that was imported under a name.
struct SweepRow {
  int64_t id = 0;
  bool imported = false;
  std::string name;
  std::map<std::string, std::string> tags;
};

// These sweeps and imports once each, or all of them when none is named. kNotFound for an unknown name, with the nearest.
common::Result<std::vector<SweepRow>> WantedSweeps(sqlite3* handle, const std::vector<std::string>& names);

}  // namespace allometry::records
