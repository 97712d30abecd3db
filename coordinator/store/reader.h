#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "coordinator/store/database.h"

// Reading beside the writer: a connection of its own, opened read-only. Used by one thread at a time; no statement
// stays open between calls, so that a slow reader never makes the WAL grow.
namespace allometry::coordinator::store {

struct LogPiece {
  std::string stream;
  int64_t offset = 0;
  std::string data;
};

class Reader {
 public:
  static common::Result<std::unique_ptr<Reader>> Open(const std::filesystem::path& database);

  // Pieces of a stream ("stdout", "stderr") from the byte `offset` on, in order, about `max_bytes` in all. A piece that
  // reaches over `offset` is cut.
  // Of the attempt's logs so far, in the order of their names: a gang has two for each rank.
  common::Result<std::vector<std::string>> LogStreams(int64_t attempt_id);
  common::Result<std::vector<LogPiece>> Logs(int64_t attempt_id, const std::string& stream, int64_t offset,
                                             int64_t max_bytes);

  // The newest event: exports are of the state up to it.
  common::Result<int64_t> LastEvent();

  // Copies the live database to a new file, consistently. kAlreadyExists: there is a file. Gives its size in bytes.
  common::Result<int64_t> Backup(const std::filesystem::path& to);

  Database& db() { return *db_; }

 private:
  explicit Reader(std::unique_ptr<Database> db) : db_(std::move(db)) {}
  std::unique_ptr<Database> db_;
};

// Finished cells as tidy rows, one JSON object a row, a page at a time, as of one event number:
//   cells    one row a finished cell: names, state, costs and metrics side by side
//   scores   one row a score, with its members; those of `metrics` as "metrics.f1"
//   metrics  one row a point of a series, along the attempts that led to the accepted result: sweep, cell, kind,
//            architecture, size, seed, attempt, series, step, value
class Exporter {
 public:
  // `sweep` empty: all. kInvalidArgument: unknown `what`. kNotFound: no such sweep.
  static common::Result<std::unique_ptr<Exporter>> Start(Reader* reader, const std::string& what,
                                                         const std::string& sweep);

  // The next rows; none: the end.
  common::Result<std::optional<std::vector<std::string>>> NextPage();

  // The same rows as text, about a mebibyte of whole lines a call; none: the end. `format` is "jsonl", or "csv" of
  // metrics, with a header; kInvalidArgument otherwise. One export is read by rows or as text in one format.
  common::Result<std::optional<std::string>> NextText(const std::string& format);

 private:
  enum class What { kCells, kScores, kMetrics };
  Exporter(Reader* reader, What what, int64_t sweep_id, int64_t event)
      : reader_(reader), what_(what), sweep_id_(sweep_id), event_(event) {}

  Reader* reader_;
  common::Result<bool> AddText(bool csv, std::string* text);  // false: the end

  What what_;
  bool begun_ = false;
  int64_t sweep_id_;  // 0 = all
  int64_t event_;
  int64_t last_sweep_ = 0;
  std::string last_name_;
};

}  // namespace allometry::coordinator::store
