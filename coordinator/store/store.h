#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"
#include "coordinator/store/database.h"
#include "coordinator/store/rows.h"

// The coordinator's database, by its only writer. Used by one thread. Errors stick within a transaction (see Database):
// the writing and reading methods return nothing useful after a failure, and Commit tells the first error.
namespace allometry::coordinator::store {

class Store {
 public:
  struct Options {
    bool durable = true;                // see Database::Options
    const char* vfs = nullptr;          // tests: a shim that runs out of space
    std::function<bool()> fail_commit;  // tests: true makes a Commit fail as if the disk were full
  };

  // Creates or migrates the database. kFailedPrecondition: a newer schema, or a network file system.
  static common::Result<std::unique_ptr<Store>> Open(const std::filesystem::path& path, Options options);
  static common::Result<std::unique_ptr<Store>> Open(const std::filesystem::path& path) {
    return Open(path, Options());
  }

  void Begin();
  // Rolls back on any error, which it returns, and clears it.
  common::Status Commit();
  void Rollback();
  common::Status status() const { return db_->status(); }
  // For reads outside of a transaction: the error, if one stuck, and clears it.
  common::Status TakeError();
  const std::filesystem::path& path() const { return db_->path(); }

  // ---- Loading ----
  std::vector<SweepRow> Sweeps();
  std::vector<WorkerRow> Workers();
  // Runs with parents and wanted cells, live leases and the next attempt id. The sweeps stand in the state already.
  void LoadRuns(scheduler::State& state);
  std::string Meta(const std::string& key);
  void SetMeta(const std::string& key, const std::string& value);
  std::pair<int64_t, int64_t> EventRange();  // oldest and newest event; zeros when there is none

  // ---- Sweeps and cells ----
  void PutSweep(const SweepRow& row);
  void DeleteSweep(int64_t sweep_id);  // one that never became visible
  int64_t NextSweepId();
  // Replaces the cell of that name.
  void PutCell(const CellRow& row);
  void SetWanted(int64_t sweep_id, int64_t run_id, bool wanted);
  std::vector<std::pair<std::string, int64_t>> CellNames(int64_t sweep_id, bool wanted_only);  // name, run
  int64_t LastPosition(int64_t sweep_id);
  std::vector<CellRow> CellsAfter(int64_t sweep_id, int64_t position, int64_t limit);
  std::optional<CellRow> CellByName(int64_t sweep_id, const std::string& name);
  std::optional<CellRow> CellOfRun(int64_t sweep_id, int64_t run_id);
  std::string AnyCellName(int64_t run_id, int64_t preferred_sweep_id);  // "<sweep>/<cell>"

  // ---- Imported tables ----
  void PutImported(const ImportedRow& row, int64_t unix_ms);  // replaces one of that name
  bool HasImported(const std::string& name);
  void DropImported(const std::string& name);

  // ---- Runs ----
  int64_t RunIdOf(const std::string& identity);  // 0 = none
  void InsertRun(const NewRun& run);
  void UpdateRun(const scheduler::Run& run);
  void RunStarted(int64_t run_id, int64_t unix_ms);  // keeps the first one
  void RunEnded(int64_t run_id, const std::string& error, int64_t unix_ms);
  void SetPrecision(int64_t run_id, const std::string& precision);
  void SetAcceptedAttempt(int64_t run_id, int64_t attempt_id);
  RunText TextOf(int64_t run_id);
  std::vector<ParentRow> ParentsOf(int64_t run_id);
  std::vector<FileRow> RawFilesOf(int64_t run_id);
  bool HasChildren(int64_t run_id);

  // ---- Attempts ----
  void InsertAttempt(const scheduler::Lease& lease, int64_t unix_ms);
  void UpdateAttempt(const scheduler::Lease& lease);
  void CloseAttempt(const scheduler::ClosedAttempt& closed, const AttemptEnd& end, int64_t unix_ms);
  std::optional<AttemptRow> Attempt(int64_t attempt_id);
  std::vector<AttemptRow> AttemptsOf(int64_t run_id);
  bool AttemptIsOf(int64_t attempt_id, int64_t worker_id);  // whether it has a rank there
  void AddMetrics(int64_t attempt_id, int64_t sequence, const std::string& series, const std::vector<int64_t>& steps,
                  const std::vector<double>& values);
  void AddLog(int64_t attempt_id, const std::string& stream, int64_t offset, const std::string& data);

  // ---- Results, outputs, checkpoints ----
  void PutResult(const ResultRow& row);
  std::optional<ResultRow> Result(int64_t run_id);
  void DropResult(int64_t run_id);  // with outputs: the run is to run again
  void PutOutputs(int64_t run_id, const std::vector<FileRow>& files);
  std::vector<FileRow> OutputsOf(int64_t run_id, const std::string& name);
  void PutCheckpoint(int64_t run_id, const std::vector<FileRow>& files);
  std::vector<FileRow> CheckpointOf(int64_t run_id);
  bool NamesBlob(const std::string& sha256);
  // Training FLOPs a second and slot over the newest finished attempts; 0 = nothing known.
  double ObservedFlopsPerSecond();

  // ---- Workers, events ----
  void PutWorker(const WorkerRow& row);
  int64_t NextWorkerId();
  int64_t WorkerIdOf(const std::string& worker_uuid);  // 0 = none; finds those that left as well
  void AddEvent(int64_t event, int64_t sweep_id, int64_t run_id, int64_t unix_ms);
  void DropEventsUpTo(int64_t event);
  std::vector<int64_t> RunsChangedSince(int64_t sweep_id, int64_t event);  // 0 stands for the sweep itself
  int64_t DatabaseBytes();

 private:
  void CountImport();
  Store(std::unique_ptr<Database> db, Options options) : db_(std::move(db)), options_(std::move(options)) {}
  void LoadParents(scheduler::State& state);
  void LoadLeases(scheduler::State& state);
  void LoadPlacements(scheduler::Lease& lease);

  std::unique_ptr<Database> db_;
  Options options_;
};

}  // namespace allometry::coordinator::store
