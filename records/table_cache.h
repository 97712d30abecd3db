#pragma once

#include <filesystem>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/result.h"
#include "records/records.h"

namespace allometry::records {

// Tables as LoadSqlite reads them, kept for the next question about the same data: reading 100,000 runs takes seconds,
// and learning that nothing has changed (DataVersion) less than a millisecond. Thread-safe; a table that several
// threads ask for at once is read by one of them, without the cache's lock.
class TableCache {
 public:
  // Keeps the tables used last, as many as have `most_cells` cells together (some kilobytes each), and always the
  // newest.
  explicit TableCache(size_t most_cells = 250'000) : most_cells_(most_cells) {}

  // Errors as LoadSqlite; none is kept.
  common::Result<std::shared_ptr<const Table>> Load(const std::filesystem::path& database,
                                                    const std::vector<std::string>& sweeps);

 private:
  using Loaded = common::Result<std::shared_ptr<const Table>>;
  struct Entry {
    std::string question, version;  // the question: database and sweeps
    std::shared_future<Loaded> table;
    size_t cells = 0;  // 0 until it is read
  };

  std::shared_future<Loaded> FindOrBegin(const std::filesystem::path& database, const std::vector<std::string>& sweeps,
                                         const std::string& question, const std::string& version);
  void Keep(const std::string& question, const std::string& version, const Loaded& loaded);

  const size_t most_cells_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // used last first; one a question
};

}  // namespace allometry::records
