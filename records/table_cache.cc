#include "records/table_cache.h"

#include <algorithm>

#include "records/sqlite.h"

namespace allometry::records {
namespace {

// No path and no sweep holds a null.
std::string QuestionOf(const std::filesystem::path& database, const std::vector<std::string>& sweeps) {
  std::string question = std::filesystem::absolute(database).string();
  for (const std::string& sweep : sweeps) (question += '\0') += sweep;
  return question;
}

}  // namespace

common::Result<std::shared_ptr<const Table>> TableCache::Load(const std::filesystem::path& database,
                                                              const std::vector<std::string>& sweeps) {
  // Before the table: what changes while it is read then counts as newer, and the next question reads it again.
  ALLO_ASSIGN_OR_RETURN(const std::string version, DataVersion(database));
  const std::string question = QuestionOf(database, sweeps);
  const Loaded loaded = FindOrBegin(database, sweeps, question, version).get();
  Keep(question, version, loaded);
  return loaded;
}

std::shared_future<TableCache::Loaded> TableCache::FindOrBegin(const std::filesystem::path& database,
                                                               const std::vector<std::string>& sweeps,
                                                               const std::string& question,
                                                               const std::string& version) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(entries_, question, &Entry::question);
  if (found != entries_.end() && found->version == version) {
    entries_.splice(entries_.begin(), entries_, found);
    return found->table;
  }
  if (found != entries_.end()) entries_.erase(found);
  // Deferred: the first thread that wants the table reads it, and the others wait for that.
  const auto read = [database, sweeps]() -> Loaded {
    ALLO_ASSIGN_OR_RETURN(Table table, LoadSqlite(database, sweeps));
    return std::make_shared<const Table>(std::move(table));
  };
  entries_.push_front({question, version, std::async(std::launch::deferred, read).share()});
  return entries_.front().table;
}

void TableCache::Keep(const std::string& question, const std::string& version, const Loaded& loaded) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(entries_, question, &Entry::question);
  if (found == entries_.end() || found->version != version) return;
  if (!loaded.ok()) {
    entries_.erase(found);
    return;
  }
  found->cells = loaded.value()->size();
  size_t cells = 0;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    cells += entry->cells;
    const bool kept = entry == entries_.begin() || cells <= most_cells_;
    entry = kept ? std::next(entry) : entries_.erase(entry);
  }
}

}  // namespace allometry::records
