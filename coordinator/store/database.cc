#include "coordinator/store/database.h"

#include <sys/vfs.h>

#include <algorithm>

#include "common/files.h"
#include "sql/migrations.h"

namespace allometry::coordinator::store {
namespace {

using common::ErrorCode;

ErrorCode CodeOf(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_FULL:
      return ErrorCode::kResourceExhausted;
    case SQLITE_NOMEM:
      return ErrorCode::kResourceExhausted;
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorCode::kUnavailable;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      return ErrorCode::kPermissionDenied;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorCode::kDataLoss;
    default:
      return ErrorCode::kInternal;
  }
}

const char* AdviceOf(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_FULL:
      return "; make room on that disk, nothing acknowledged is lost";
    case SQLITE_IOERR:
      return "; check the disk and its free space, nothing acknowledged is lost";
    case SQLITE_NOTADB:
      return "; this is not an Allometry database";
    default:
      return "";
  }
}

void Configure(Database& db, const Database::Options& options) {
  sqlite3_busy_timeout(db.handle(), 5'000);
  if (!options.read_only) {
    db.Execute("PRAGMA journal_mode=WAL");
    db.Execute(options.durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF");
    db.Execute("PRAGMA journal_size_limit=67108864");
  }
  db.Execute("PRAGMA foreign_keys=ON");
  db.Execute("PRAGMA cache_size=-65536");
}

}  // namespace

bool Query::Next() {
  if (statement_ == nullptr) return false;
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  const char* sql = sqlite3_sql(statement_);
  sqlite3_reset(statement_);
  statement_ = nullptr;
  if (code != SQLITE_DONE) database_->Fail(code, sql);
  return false;
}

std::string Query::Text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  return bytes == nullptr ? std::string() : std::string(bytes, sqlite3_column_bytes(statement_, column));
}

void Query::Bind(int index, std::string_view value) {
  if (statement_)
    sqlite3_bind_text64(statement_, index, value.data() ? value.data() : "", value.size(), SQLITE_TRANSIENT,
                        SQLITE_UTF8);
}

void Query::Bind(int index, Blob value) {
  if (statement_)
    sqlite3_bind_blob64(statement_, index, value.bytes.data() ? value.bytes.data() : "", value.bytes.size(),
                        SQLITE_TRANSIENT);
}

common::Result<std::unique_ptr<Database>> Database::Open(const std::filesystem::path& path, const Options& options) {
  // Counting what SQLite allocates takes a global lock at every allocation, and nobody reads the count.
  [[maybe_unused]] static const int uncounted = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  sqlite3* handle = nullptr;
  const int flags = options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags | SQLITE_OPEN_NOMUTEX, options.vfs);
  auto db = std::unique_ptr<Database>(new Database(handle, path));
  if (code != SQLITE_OK) db->Fail(code, "open");
  sqlite3_extended_result_codes(handle, 1);
  if (db->ok()) Configure(*db, options);
  ALLO_RETURN_IF_ERROR(db->status());
  return db;
}

Database::~Database() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close_v2(handle_);
}

sqlite3_stmt* Database::Prepare(const char* sql) {
  if (!ok()) return nullptr;
  sqlite3_stmt*& statement = statements_[sql];
  if (statement == nullptr) {
    const int code = sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) Fail(code, sql);
    if (statement == nullptr) return nullptr;
  }
  // A statement still being read is its caller's mistake: it would be reset under its reader.
  if (sqlite3_stmt_busy(statement)) throw std::logic_error(std::string("statement used twice at once: ") + sql);
  sqlite3_clear_bindings(statement);
  return statement;
}

void Database::Execute(const char* sql) {
  if (!ok()) return;
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) Fail(code, sql);
}

void Database::Fail(int sqlite_code, const char* what) {
  if (!ok()) return;
  code_ = CodeOf(sqlite_code);
  error_ = "database " + path_.string() + ": " + (handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(sqlite_code)) +
           AdviceOf(sqlite_code);
  if (code_ == ErrorCode::kInternal) error_ += " (" + std::string(what).substr(0, 80) + ")";
}

void Database::ClearError() {
  error_.clear();
  code_ = ErrorCode::kInternal;
}

bool IsNetworkFileSystem(int64_t statfs_type) {
  // NFS, SMB, CIFS, SMB2, AFS, Coda, NCP, Ceph, Lustre, GPFS, BeeGFS.
  static constexpr int64_t kTypes[] = {0x6969, 0x517B,     0xFF534D42, 0xFE534D42, 0x5346414F, 0x73757245,
                                       0x564c, 0x00c36400, 0x0BD00BD0, 0x47504653, 0x19830326};
  return std::ranges::find(kTypes, statfs_type & 0xFFFFFFFF) != std::end(kTypes);
}

common::Status RefuseNetworkFileSystem(const std::filesystem::path& directory) {
  struct statfs info {};
  if (statfs(directory.c_str(), &info) != 0)
    return common::PermissionDenied("cannot examine " + directory.string() + ": " + common::ErrnoText());
  if (!IsNetworkFileSystem(static_cast<int64_t>(info.f_type))) return common::Ok();
  return common::FailedPrecondition(directory.string() +
                                    " lies on a network file system, where SQLite can lose data; name a " +
                                    "directory on a local disk with --data");
}

common::Status Migrate(Database& db) {
  int64_t version = 0;
  if (Query query = db("PRAGMA user_version"); query.Next()) version = query.Int(0);
  const int64_t known = static_cast<int64_t>(sql::kMigrations.size());
  ALLO_RETURN_IF_ERROR(db.status());
  if (version > known)
    return common::FailedPrecondition("database " + db.path().string() + " has schema " + std::to_string(version) +
                                      ", newer than this program's " + std::to_string(known) +
                                      ": use the newer program, or another --data directory");
  for (int64_t next = version + 1; next <= known; ++next) {
    db.Execute("BEGIN IMMEDIATE");
    db.Execute(sql::kMigrations[next - 1]);
    db.Execute(("PRAGMA user_version=" + std::to_string(next)).c_str());
    db.Execute("COMMIT");
    if (db.ok()) continue;
    const common::Status failed = db.status();
    db.ClearError();
    if (db.InTransaction()) db.Execute("ROLLBACK");
    return failed;
  }
  return db.status();
}

}  // namespace allometry::coordinator::store
