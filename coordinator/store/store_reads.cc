#include <filesystem>

#include "coordinator/store/store.h"
#include "records/metric_chunk.h"

namespace allometry::coordinator::store {
namespace {

#define CELL_COLUMNS                                                                                                 \
  "SELECT c.sweep_id, c.name, c.run_id, c.position, c.kind, c.architecture, c.size, c.seed, c.wanted, c.tags_json, " \
  "r.identity, r.costs_json, r.error, r.started_unix_ms, r.finished_unix_ms, COALESCE((SELECT a.worker_id FROM "     \
  "attempts a WHERE a.run_id = c.run_id ORDER BY a.generation DESC LIMIT 1), 0) FROM cells c JOIN runs r ON "        \
  "r.run_id = c.run_id "

CellRow CellOf(const Query& q) {
  CellRow row;
  row.sweep_id = q.Int(0);
  row.name = q.Text(1);
  row.run_id = q.Int(2);
  row.position = q.Int(3);
  row.kind = q.Text(4);
  row.architecture = q.Text(5);
  row.size = q.Text(6);
  row.seed = static_cast<uint64_t>(q.Int(7));
  row.wanted = q.Int(8) != 0;
  row.tags_json = q.Text(9);
  row.identity = q.Text(10);
  row.costs_json = q.Text(11);
  row.error = q.Text(12);
  row.started_unix_ms = q.Int(13);
  row.finished_unix_ms = q.Int(14);
  row.worker_id = q.Int(15);
  return row;
}

std::optional<CellRow> FirstCell(Query q) {
  if (!q.Next()) return std::nullopt;
  return CellOf(q);
}

std::vector<FileRow> FilesFrom(Query q) {
  std::vector<FileRow> files;
  while (q.Next()) files.push_back({q.Text(0), q.Text(1), q.Text(2), q.Int(3), q.Text(4)});
  return files;
}

#define ATTEMPT_COLUMNS                                                                                                \
  "SELECT attempt_id, run_id, generation, worker_id, outcome, accepted, exit_code, signal, message, provenance_json, " \
  "first_step, last_step, started_unix_ms, ended_unix_ms, sweep_id FROM attempts "

AttemptRow AttemptOf(const Query& q) {
  AttemptRow row;
  row.attempt_id = q.Int(0);
  row.run_id = q.Int(1);
  row.generation = q.Int(2);
  row.worker_id = q.Int(3);
  row.outcome = q.Text(4);
  row.accepted = q.Int(5) != 0;
  row.exit_code = q.Int(6);
  row.signal = q.Int(7);
  row.message = q.Text(8);
  row.provenance_json = q.Text(9);
  row.first_step = q.Int(10);
  row.last_step = q.Int(11);
  row.started_unix_ms = q.Int(12);
  row.ended_unix_ms = q.Int(13);
  row.sweep_id = q.Int(14);
  return row;
}

}  // namespace

std::vector<CellRow> Store::CellsAfter(int64_t sweep_id, int64_t position, int64_t limit) {
  std::vector<CellRow> rows;
  Query q = (*db_)(CELL_COLUMNS "WHERE c.sweep_id = ? AND c.position > ? ORDER BY c.position LIMIT ?", sweep_id,
                   position, limit);
  while (q.Next()) rows.push_back(CellOf(q));
  return rows;
}

int64_t Store::LastPosition(int64_t sweep_id) {
  Query q = (*db_)("SELECT COALESCE(MAX(position), 0) FROM cells WHERE sweep_id = ?", sweep_id);
  return q.Next() ? q.Int(0) : 0;
}

std::optional<CellRow> Store::CellByName(int64_t sweep_id, const std::string& name) {
  return FirstCell((*db_)(CELL_COLUMNS "WHERE c.sweep_id = ? AND c.name = ?", sweep_id, name));
}

std::optional<CellRow> Store::CellOfRun(int64_t sweep_id, int64_t run_id) {
  return FirstCell(
      (*db_)(CELL_COLUMNS "WHERE c.sweep_id = ? AND c.run_id = ? ORDER BY c.wanted DESC LIMIT 1", sweep_id, run_id));
}

std::string Store::AnyCellName(int64_t run_id, int64_t preferred_sweep_id) {
  Query q = (*db_)(
      "SELECT s.name || '/' || c.name FROM cells c JOIN sweeps s ON s.sweep_id = c.sweep_id WHERE c.run_id = ? "
      "ORDER BY c.sweep_id = ? DESC, c.wanted DESC LIMIT 1",
      run_id, preferred_sweep_id);
  return q.Next() ? q.Text(0) : std::string();
}

RunText Store::TextOf(int64_t run_id) {
  Query q = (*db_)("SELECT identity, run_json, precision_asked, precision FROM runs WHERE run_id = ?", run_id);
  if (!q.Next()) return {};
  return {q.Text(0), q.Text(1), q.Text(2), q.Text(3)};
}

std::vector<ParentRow> Store::ParentsOf(int64_t run_id) {
  std::vector<ParentRow> rows;
  Query q = (*db_)("SELECT input_name, parent_id FROM run_parents WHERE run_id = ? ORDER BY input_name", run_id);
  while (q.Next()) rows.push_back({q.Text(0), q.Int(1)});
  return rows;
}

std::vector<FileRow> Store::RawFilesOf(int64_t run_id) {
  return FilesFrom(
      (*db_)("SELECT role, name, sha256, bytes, path FROM run_files WHERE run_id = ? ORDER BY role, name", run_id));
}

bool Store::HasChildren(int64_t run_id) {
  return (*db_)("SELECT 1 FROM run_parents WHERE parent_id = ? LIMIT 1", run_id).Next();
}

std::optional<AttemptRow> Store::Attempt(int64_t attempt_id) {
  Query q = (*db_)(ATTEMPT_COLUMNS "WHERE attempt_id = ?", attempt_id);
  if (!q.Next()) return std::nullopt;
  return AttemptOf(q);
}

std::vector<AttemptRow> Store::AttemptsOf(int64_t run_id) {
  std::vector<AttemptRow> rows;
  Query q = (*db_)(ATTEMPT_COLUMNS "WHERE run_id = ? ORDER BY generation", run_id);
  while (q.Next()) rows.push_back(AttemptOf(q));
  for (AttemptRow& row : rows) {
    Query ranks = (*db_)("SELECT worker_id FROM placements WHERE attempt_id = ? ORDER BY rank", row.attempt_id);
    while (ranks.Next()) row.rank_workers.push_back(ranks.Int(0));
  }
  return rows;
}

bool Store::AttemptIsOf(int64_t attempt_id, int64_t worker_id) {
  return (*db_)("SELECT 1 FROM placements WHERE attempt_id = ? AND worker_id = ?", attempt_id, worker_id).Next();
}

void Store::AddMetrics(int64_t attempt_id, int64_t sequence, const std::string& series,
                       const std::vector<int64_t>& steps, const std::vector<double>& values) {
  (*db_)(
      "INSERT OR IGNORE INTO metrics (attempt_id, series, sequence, first_step, points, data) VALUES (?, ?, ?, ?, ?, "
      "?)",
      attempt_id, series, sequence, steps.empty() ? int64_t{0} : steps.front(), static_cast<int64_t>(steps.size()),
      Blob{records::PackPoints(steps, values)})
      .Run();
}

void Store::AddLog(int64_t attempt_id, const std::string& stream, int64_t offset, const std::string& data) {
  (*db_)("INSERT OR IGNORE INTO logs (attempt_id, stream, offset, data) VALUES (?, ?, ?, ?)", attempt_id, stream,
         offset, Blob{data})
      .Run();
}

std::optional<ResultRow> Store::Result(int64_t run_id) {
  Query q = (*db_)(
      "SELECT run_id, attempt_id, event, metrics_json, scores_json, report_json FROM results WHERE run_id = ?", run_id);
  if (!q.Next()) return std::nullopt;
  return ResultRow{q.Int(0), q.Int(1), q.Int(2), q.Text(3), q.Text(4), q.Text(5)};
}

std::vector<FileRow> Store::OutputsOf(int64_t run_id, const std::string& name) {
  return FilesFrom((*db_)(
      "SELECT name, path, sha256, bytes, '' FROM outputs WHERE run_id = ? AND name = ? ORDER BY path", run_id, name));
}

std::vector<FileRow> Store::CheckpointOf(int64_t run_id) {
  return FilesFrom(
      (*db_)("SELECT name, path, sha256, bytes, '' FROM checkpoint_files WHERE run_id = ? ORDER BY path", run_id));
}

bool Store::NamesBlob(const std::string& sha256) {
  return (*db_)(
             "SELECT 1 FROM outputs WHERE sha256 = ?1 UNION ALL SELECT 1 FROM checkpoint_files WHERE sha256 = ?1 UNION "
             "ALL "
             "SELECT 1 FROM run_files f JOIN runs r ON r.run_id = f.run_id WHERE f.sha256 = ?1 AND r.state <> 'done' "
             "LIMIT 1",
             sha256)
      .Next();
}

int64_t Store::WorkerIdOf(const std::string& worker_uuid) {
  Query q = (*db_)("SELECT worker_id FROM workers WHERE worker_uuid = ?", worker_uuid);
  return q.Next() ? q.Int(0) : 0;
}

double Store::ObservedFlopsPerSecond() {
  Query q = (*db_)(
      "SELECT SUM(f), SUM(d) FROM (SELECT r.training_flops * (a.last_step - a.first_step) / r.steps AS f, "
      "a.device_seconds AS d "
      "FROM attempts a JOIN runs r ON r.run_id = a.run_id WHERE a.outcome = 'done' AND a.device_seconds > 0 AND "
      "r.steps > 0 "
      "AND r.training_flops > 0 ORDER BY a.attempt_id DESC LIMIT 100)");
  if (!q.Next() || q.Real(1) <= 0) return 0;
  return q.Real(0) / q.Real(1);
}

std::vector<int64_t> Store::RunsChangedSince(int64_t sweep_id, int64_t event) {
  std::vector<int64_t> runs;
  Query q =
      (*db_)("SELECT DISTINCT run_id FROM events WHERE sweep_id = ? AND event > ? ORDER BY run_id", sweep_id, event);
  while (q.Next()) runs.push_back(q.Int(0));
  return runs;
}

int64_t Store::DatabaseBytes() {
  std::error_code ignored;
  int64_t bytes = 0;
  for (const char* suffix : {"", "-wal"}) {
    const auto size = std::filesystem::file_size(path().string() + suffix, ignored);
    if (!ignored) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace allometry::coordinator::store
