#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "common/result.h"

namespace allometry::coordinator::store {

// Bytes bound as a BLOB, where std::string_view would be TEXT.
struct Blob {
  std::string_view bytes;
};

// One execution of a prepared statement. Columns count from 0 and are valid after Next() returned true.
class Query {
 public:
  Query(sqlite3_stmt* statement, class Database* database) : statement_(statement), database_(database) {}
  Query(Query&& other) noexcept : statement_(other.statement_), database_(other.database_) {
    other.statement_ = nullptr;
  }
  Query(const Query&) = delete;
  ~Query() {
    if (statement_ != nullptr) sqlite3_reset(statement_);
  }

  bool Next();
  void Run() {
    while (Next()) {
    }
  }
  int64_t Int(int column) const { return sqlite3_column_int64(statement_, column); }
  double Real(int column) const { return sqlite3_column_double(statement_, column); }
  std::string Text(int column) const;  // of a BLOB as well

  void Bind(int index, int64_t value) {
    if (statement_) sqlite3_bind_int64(statement_, index, value);
  }
  void Bind(int index, int value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, uint32_t value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, bool value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, double value) {
    if (statement_) sqlite3_bind_double(statement_, index, value);
  }
  void Bind(int index, std::string_view value);
  void Bind(int index, const std::string& value) { Bind(index, std::string_view(value)); }
  void Bind(int index, const char* value) { Bind(index, std::string_view(value)); }
  void Bind(int index, Blob value);

 private:
  sqlite3_stmt* statement_;  // nullptr after an error: Next() is false
  Database* database_;
};

// One SQLite connection with its prepared statements. Errors stick: after a failed statement all others do nothing,
// until ClearError(); so a caller may write a whole transaction and look once, at its end. Not thread-safe.
class Database {
 public:
  struct Options {
    bool read_only = false;
    bool durable = true;  // synchronous=FULL; off only for tests that never lose power
    const char* vfs = nullptr;
  };
  static common::Result<std::unique_ptr<Database>> Open(const std::filesystem::path& path, const Options& options);
  ~Database();
  Database(const Database&) = delete;

  // `sql` must be a literal: statements are kept by its address. Arguments are copied.
  template <typename... Args>
  Query operator()(const char* sql, const Args&... args) {
    Query query(Prepare(sql), this);
    int index = 0;
    (query.Bind(++index, args), ...);
    return query;
  }
  // Several statements without arguments, not kept.
  void Execute(const char* sql);

  common::Status status() const { return error_.empty() ? common::Ok() : common::Status(common::Error{code_, error_}); }
  bool ok() const { return error_.empty(); }
  void ClearError();
  void Fail(int sqlite_code, const char* what);
  int64_t Changes() const { return sqlite3_changes64(handle_); }
  bool InTransaction() const { return sqlite3_get_autocommit(handle_) == 0; }
  const std::filesystem::path& path() const { return path_; }
  sqlite3* handle() { return handle_; }

 private:
  Database(sqlite3* handle, std::filesystem::path path) : handle_(handle), path_(std::move(path)) {}
  sqlite3_stmt* Prepare(const char* sql);

  sqlite3* handle_;
  std::filesystem::path path_;
  std::unordered_map<const char*, sqlite3_stmt*> statements_;
  std::string error_;
  common::ErrorCode code_ = common::ErrorCode::kInternal;
};

// kFailedPrecondition if the directory lies on a network file system, where SQLite's locks and WAL do not hold.
common::Status RefuseNetworkFileSystem(const std::filesystem::path& directory);
bool IsNetworkFileSystem(int64_t statfs_type);

// Brings the schema to this program's version, each migration in a transaction of its own. kFailedPrecondition: a newer
// database.
common::Status Migrate(Database& db);

}  // namespace allometry::coordinator::store
