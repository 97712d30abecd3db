#include "coordinator/store/store.h"

#include <array>

namespace allometry::coordinator::store {
namespace {

using scheduler::Kind;
using scheduler::RunState;

constexpr std::array kKindNames{"", "prepare", "pretrain", "finetune"};
constexpr std::array kStateNames{"pending", "running", "done", "failed", "diverged"};

template <typename Enum, size_t n>
Enum ParseName(const std::array<const char*, n>& names, const std::string& text) {
  for (size_t i = 0; i < n; ++i)
    if (text == names[i]) return static_cast<Enum>(i);
  throw std::logic_error("unknown word in the database: " + text);
}

}  // namespace

const char* KindName(Kind kind) { return kKindNames[static_cast<size_t>(kind)]; }
const char* RunStateName(RunState state) { return kStateNames[static_cast<size_t>(state)]; }

common::Result<std::unique_ptr<Store>> Store::Open(const std::filesystem::path& path, Options options) {
  ALLO_RETURN_IF_ERROR(RefuseNetworkFileSystem(path.parent_path().empty() ? "." : path.parent_path()));
  ALLO_ASSIGN_OR_RETURN(auto db, Database::Open(path, {.durable = options.durable, .vfs = options.vfs}));
  ALLO_RETURN_IF_ERROR(Migrate(*db));
  return std::unique_ptr<Store>(new Store(std::move(db), std::move(options)));
}

void Store::Begin() { (*db_)("BEGIN IMMEDIATE").Run(); }

common::Status Store::Commit() {
  if (db_->ok() && options_.fail_commit && options_.fail_commit()) db_->Fail(SQLITE_FULL, "COMMIT");
  (*db_)("COMMIT").Run();
  if (db_->ok()) return common::Ok();
  const common::Status failed = db_->status();
  Rollback();
  return failed;
}

void Store::Rollback() {
  db_->ClearError();
  // Some errors have rolled back already.
  if (db_->InTransaction()) (*db_)("ROLLBACK").Run();
  db_->ClearError();
}

common::Status Store::TakeError() {
  const common::Status status = db_->status();
  db_->ClearError();
  return status;
}

std::vector<SweepRow> Store::Sweeps() {
  std::vector<SweepRow> rows;
  Query q = (*db_)(
      "SELECT sweep_id, name, description, tags_json, spec_json, content_hash, request_uuid, state, policy, priority, "
      "budget_flops, spent_flops, limit_seconds, limit_memory_bytes, limit_threads, activation_checkpointing, "
      "keep_models, submitted_unix_ms, finished_unix_ms FROM sweeps ORDER BY sweep_id");
  while (q.Next())
    rows.push_back({q.Int(0), q.Text(1), q.Text(2), q.Text(3), q.Text(4), q.Text(5), q.Text(6), q.Text(7), q.Text(8),
                    q.Int(9), q.Real(10), q.Real(11), q.Int(12), q.Int(13), q.Int(14), q.Int(15) != 0, q.Int(16) != 0,
                    q.Int(17), q.Int(18)});
  return rows;
}

std::vector<WorkerRow> Store::Workers() {
  std::vector<WorkerRow> rows;
  Query q = (*db_)(
      "SELECT worker_id, worker_uuid, name, host, state, slots, threads_per_slot, memory_bytes, devices_json, "
      "trainers_json, version, provenance_json, registered_unix_ms, last_seen_unix_ms, directory_uuid, "
      "device_memory_json, protocol FROM workers "
      "WHERE state <> 'left' ORDER BY worker_id");
  while (q.Next())
    rows.push_back({q.Int(0), q.Text(1), q.Text(2), q.Text(3), q.Text(4), q.Int(5), q.Int(6), q.Int(7), q.Text(8),
                    q.Text(9), q.Text(10), q.Text(11), q.Int(12), q.Int(13), q.Text(14), q.Text(15), q.Int(16)});
  return rows;
}

void Store::LoadRuns(scheduler::State& state) {
  Query q = (*db_)(
      "SELECT run_id, kind, trainer, training_flops, steps, memory_bytes, state, generation, crashes, out_of_memory, "
      "preemptions, micro_batch, checkpoint_step, keeps_outputs, "
      "(SELECT worker_id FROM attempts a WHERE a.run_id = r.run_id ORDER BY generation DESC LIMIT 1), devices, "
      "most_devices, replicated_bytes, slots_per_gpu, gpu_whole_bytes, gpu_divided_bytes "
      "FROM runs r ORDER BY run_id");
  while (q.Next()) {
    scheduler::Run run;
    run.id = q.Int(0);
    run.kind = ParseName<Kind>(kKindNames, q.Text(1));
    run.trainer = state.TrainerNumber(q.Text(2));
    run.flops = q.Real(3);
    run.steps = q.Int(4);
    run.memory_bytes = q.Int(5);
    run.state = ParseName<RunState>(kStateNames, q.Text(6));
    run.generation = static_cast<uint32_t>(q.Int(7));
    run.crashes = static_cast<uint8_t>(q.Int(8));
    run.out_of_memory = static_cast<uint8_t>(q.Int(9));
    run.preemptions = static_cast<uint8_t>(q.Int(10));
    run.micro_batch = static_cast<uint32_t>(q.Int(11));
    run.checkpoint_step = q.Int(12);
    run.keeps_outputs = q.Int(13) != 0;
    run.last_worker = q.Int(14);
    run.devices = static_cast<uint16_t>(q.Int(15));
    run.most_devices = static_cast<uint16_t>(q.Int(16));
    run.replicated_bytes = q.Int(17);
    run.slots_per_gpu = static_cast<uint8_t>(q.Int(18));
    run.gpu_whole_bytes = q.Int(19);
    run.gpu_divided_bytes = q.Int(20);
    if (run.id != static_cast<int64_t>(state.runs.size()) + 1) throw std::logic_error("run numbers have a gap");
    state.runs.push_back(std::move(run));
  }
  LoadParents(state);
  LoadLeases(state);
}

void Store::LoadParents(scheduler::State& state) {
  Query parents = (*db_)("SELECT DISTINCT run_id, parent_id FROM run_parents ORDER BY run_id, parent_id");
  while (parents.Next()) {
    state.FindRun(parents.Int(0))->parents.push_back(parents.Int(1));
    state.FindRun(parents.Int(1))->children.push_back(parents.Int(0));
  }
  Query cells = (*db_)("SELECT run_id, sweep_id FROM cells WHERE wanted = 1 ORDER BY run_id, sweep_id");
  while (cells.Next())
    if (state.sweeps.contains(cells.Int(1))) state.FindRun(cells.Int(0))->sweeps.push_back(cells.Int(1));
}

void Store::LoadLeases(scheduler::State& state) {
  Query live = (*db_)(
      "SELECT attempt_id, run_id, generation, sweep_id, first_step, last_step, stop_requested, cancelled "
      "FROM attempts WHERE outcome = 'live' ORDER BY attempt_id");
  while (live.Next()) {
    scheduler::Lease lease;
    lease.attempt_id = live.Int(0);
    lease.run_id = live.Int(1);
    lease.generation = static_cast<uint32_t>(live.Int(2));
    lease.sweep_id = live.Int(3);
    lease.first_step = live.Int(4);
    lease.last_step = live.Int(5);
    lease.first_step_known = lease.last_step != lease.first_step;
    lease.stop = live.Int(6) != 0;
    lease.cancelled = live.Int(7) != 0;
    LoadPlacements(lease);
    state.FindRun(lease.run_id)->live_attempt = lease.attempt_id;
    state.leases[lease.attempt_id] = lease;
  }
  if (Query q = (*db_)("SELECT COALESCE(MAX(attempt_id), 0) FROM attempts"); q.Next())
    state.next_attempt_id = q.Int(0) + 1;
}

void Store::LoadPlacements(scheduler::Lease& lease) {
  Query q = (*db_)("SELECT worker_id, finished, device, parts FROM placements WHERE attempt_id = ? ORDER BY rank",
                   lease.attempt_id);
  while (q.Next())
    lease.placements.push_back({.worker_id = q.Int(0),
                                .device = static_cast<int>(q.Int(2)),
                                .parts = static_cast<int>(q.Int(3)),
                                .finished = q.Int(1) != 0});
  if (lease.placements.empty() && db_->ok())
    throw std::logic_error("attempt " + std::to_string(lease.attempt_id) + " has no placement");
}

std::string Store::Meta(const std::string& key) {
  Query q = (*db_)("SELECT value FROM meta WHERE key = ?", key);
  return q.Next() ? q.Text(0) : std::string();
}

void Store::SetMeta(const std::string& key, const std::string& value) {
  (*db_)("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key,
         value)
      .Run();
}

std::pair<int64_t, int64_t> Store::EventRange() {
  Query q = (*db_)("SELECT COALESCE(MIN(event), 0), COALESCE(MAX(event), 0) FROM events");
  if (!q.Next()) return {0, 0};
  return {q.Int(0), q.Int(1)};
}

void Store::PutSweep(const SweepRow& r) {
  (*db_)(
      "INSERT INTO sweeps (sweep_id, name, description, tags_json, spec_json, content_hash, request_uuid, state, "
      "policy, priority, budget_flops, spent_flops, limit_seconds, limit_memory_bytes, limit_threads, "
      "activation_checkpointing, keep_models, submitted_unix_ms, finished_unix_ms) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sweep_id) DO UPDATE SET "
      "description = excluded.description, tags_json = excluded.tags_json, spec_json = excluded.spec_json, "
      "content_hash = excluded.content_hash, request_uuid = excluded.request_uuid, state = excluded.state, "
      "policy = excluded.policy, priority = excluded.priority, budget_flops = excluded.budget_flops, "
      "spent_flops = excluded.spent_flops, limit_seconds = excluded.limit_seconds, "
      "limit_memory_bytes = excluded.limit_memory_bytes, limit_threads = excluded.limit_threads, "
      "activation_checkpointing = excluded.activation_checkpointing, keep_models = excluded.keep_models, "
      "finished_unix_ms = excluded.finished_unix_ms",
      r.sweep_id, r.name, r.description, r.tags_json, r.spec_json, r.content_hash, r.request_uuid, r.state, r.policy,
      r.priority, r.budget_flops, r.spent_flops, r.limit_seconds, r.limit_memory_bytes, r.limit_threads,
      r.activation_checkpointing ? 1 : 0, r.keep_models ? 1 : 0, r.submitted_unix_ms, r.finished_unix_ms)
      .Run();
}

void Store::DeleteSweep(int64_t sweep_id) {
  (*db_)("DELETE FROM cells WHERE sweep_id = ?", sweep_id).Run();
  (*db_)("DELETE FROM sweeps WHERE sweep_id = ?", sweep_id).Run();
}

int64_t Store::NextSweepId() {
  // Events of a sweep that was dropped must not become those of a new one.
  Query q = (*db_)(
      "SELECT 1 + MAX((SELECT COALESCE(MAX(sweep_id), 0) FROM sweeps), (SELECT COALESCE(MAX(sweep_id), 0) FROM "
      "events))");
  return q.Next() ? q.Int(0) : 0;
}

void Store::PutImported(const ImportedRow& r, int64_t unix_ms) {
  (*db_)(
      "INSERT OR REPLACE INTO imported (name, source, mapping, runs, bytes, data, imported_unix_ms) "
      "VALUES (?, ?, ?, ?, ?, ?, ?)",
      r.name, r.source, r.mapping, r.runs, r.bytes, Blob{r.data}, unix_ms)
      .Run();
  CountImport();
}

// Readers know by this number whether what they have read is still so.
void Store::CountImport() {
  (*db_)("INSERT INTO meta (key, value) VALUES ('imports', '1') ON CONFLICT (key) DO UPDATE SET value = value + 1")
      .Run();
}

bool Store::HasImported(const std::string& name) {
  return (*db_)("SELECT 1 FROM imported WHERE name = ?", name).Next();
}

void Store::DropImported(const std::string& name) {
  (*db_)("DELETE FROM imported WHERE name = ?", name).Run();
  CountImport();
}

void Store::PutCell(const CellRow& r) {
  (*db_)(
      "INSERT OR REPLACE INTO cells (sweep_id, name, run_id, position, kind, architecture, size, seed, wanted, "
      "tags_json) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      r.sweep_id, r.name, r.run_id, r.position, r.kind, r.architecture, r.size, static_cast<int64_t>(r.seed), r.wanted,
      r.tags_json)
      .Run();
}

void Store::SetWanted(int64_t sweep_id, int64_t run_id, bool wanted) {
  (*db_)("UPDATE cells SET wanted = ? WHERE sweep_id = ? AND run_id = ?", wanted, sweep_id, run_id).Run();
}

std::vector<std::pair<std::string, int64_t>> Store::CellNames(int64_t sweep_id, bool wanted_only) {
  std::vector<std::pair<std::string, int64_t>> names;
  Query q = (*db_)("SELECT name, run_id FROM cells WHERE sweep_id = ? AND wanted >= ? ORDER BY position", sweep_id,
                   wanted_only);
  while (q.Next()) names.emplace_back(q.Text(0), q.Int(1));
  return names;
}

int64_t Store::RunIdOf(const std::string& identity) {
  Query q = (*db_)("SELECT run_id FROM runs WHERE identity = ?", identity);
  return q.Next() ? q.Int(0) : 0;
}

void Store::InsertRun(const NewRun& n) {
  const scheduler::Run& r = *n.run;
  (*db_)(
      "INSERT INTO runs (run_id, identity, kind, trainer, run_json, costs_json, training_flops, steps, memory_bytes, "
      "replicated_bytes, devices, most_devices, slots_per_gpu, gpu_whole_bytes, gpu_divided_bytes, state, "
      "precision_asked, precision, created_unix_ms) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?)",
      r.id, n.identity, KindName(r.kind), n.trainer, n.run_json, n.costs_json, r.flops, r.steps, r.memory_bytes,
      r.replicated_bytes, int64_t{r.devices}, int64_t{r.most_devices}, int64_t{r.slots_per_gpu}, r.gpu_whole_bytes,
      r.gpu_divided_bytes, n.precision_asked, n.precision_asked == "auto" ? "" : n.precision_asked, n.created_unix_ms)
      .Run();
  for (const ParentRow& p : n.parents)
    (*db_)("INSERT INTO run_parents (run_id, parent_id, input_name) VALUES (?, ?, ?)", r.id, p.parent_id, p.input_name)
        .Run();
  for (const FileRow& f : n.files)
    (*db_)("INSERT OR IGNORE INTO run_files (run_id, role, name, bytes, sha256, path) VALUES (?, ?, ?, ?, ?, ?)", r.id,
           f.name, f.path, f.bytes, f.sha256, f.hint)
        .Run();
}

void Store::UpdateRun(const scheduler::Run& r) {
  (*db_)(
      "UPDATE runs SET state = ?, generation = ?, crashes = ?, out_of_memory = ?, preemptions = ?, micro_batch = ?, "
      "checkpoint_step = ?, keeps_outputs = ?, devices = ?, most_devices = ?, replicated_bytes = ?, slots_per_gpu = ?, "
      "gpu_whole_bytes = ?, gpu_divided_bytes = ? WHERE run_id = ?",
      RunStateName(r.state), r.generation, int64_t{r.crashes}, int64_t{r.out_of_memory}, int64_t{r.preemptions},
      r.micro_batch, r.checkpoint_step, r.keeps_outputs, int64_t{r.devices}, int64_t{r.most_devices},
      r.replicated_bytes, int64_t{r.slots_per_gpu}, r.gpu_whole_bytes, r.gpu_divided_bytes, r.id)
      .Run();
}

void Store::RunStarted(int64_t run_id, int64_t unix_ms) {
  (*db_)("UPDATE runs SET started_unix_ms = ? WHERE run_id = ? AND started_unix_ms = 0", unix_ms, run_id).Run();
}

void Store::RunEnded(int64_t run_id, const std::string& error, int64_t unix_ms) {
  (*db_)("UPDATE runs SET error = ?, finished_unix_ms = ? WHERE run_id = ?", error, unix_ms, run_id).Run();
}

void Store::SetPrecision(int64_t run_id, const std::string& precision) {
  (*db_)("UPDATE runs SET precision = ? WHERE run_id = ? AND precision = ''", precision, run_id).Run();
}

void Store::SetAcceptedAttempt(int64_t run_id, int64_t attempt_id) {
  (*db_)("UPDATE runs SET accepted_attempt = ? WHERE run_id = ?", attempt_id, run_id).Run();
}

void Store::InsertAttempt(const scheduler::Lease& l, int64_t unix_ms) {
  (*db_)(
      "INSERT INTO attempts (attempt_id, run_id, generation, worker_id, sweep_id, outcome, first_step, last_step, "
      "started_unix_ms) VALUES (?, ?, ?, ?, ?, 'live', ?, ?, ?)",
      l.attempt_id, l.run_id, l.generation, l.worker_id(), l.sweep_id, l.first_step, l.last_step, unix_ms)
      .Run();
  for (size_t rank = 0; rank < l.placements.size(); ++rank) {
    const scheduler::Placement& place = l.placements[rank];
    (*db_)("INSERT INTO placements (attempt_id, rank, worker_id, device, parts) VALUES (?, ?, ?, ?, ?)", l.attempt_id,
           static_cast<int64_t>(rank), place.worker_id, int64_t{place.device}, int64_t{place.parts})
        .Run();
  }
}

void Store::UpdateAttempt(const scheduler::Lease& l) {
  (*db_)("UPDATE attempts SET first_step = ?, last_step = ?, stop_requested = ?, cancelled = ? WHERE attempt_id = ?",
         l.first_step, l.last_step, l.stop, l.cancelled, l.attempt_id)
      .Run();
  for (size_t rank = 0; l.gang() && rank < l.placements.size(); ++rank)
    if (l.placements[rank].finished)
      (*db_)("UPDATE placements SET finished = 1 WHERE attempt_id = ? AND rank = ?", l.attempt_id,
             static_cast<int64_t>(rank))
          .Run();
}

void Store::CloseAttempt(const scheduler::ClosedAttempt& c, const AttemptEnd& end, int64_t unix_ms) {
  (*db_)(
      "UPDATE attempts SET outcome = ?, accepted = ?, exit_code = ?, signal = ?, message = ?, first_step = ?, "
      "last_step = ?, "
      "stop_requested = ?, cancelled = ?, device_seconds = ?, provenance_json = ?, ended_unix_ms = ? WHERE attempt_id "
      "= ?",
      scheduler::OutcomeName(c.outcome), end.accepted, end.exit_code, end.signal, c.message, c.lease.first_step,
      c.lease.last_step, c.lease.stop, c.lease.cancelled, end.device_seconds, end.provenance_json, unix_ms,
      c.lease.attempt_id)
      .Run();
}

void Store::PutResult(const ResultRow& r) {
  (*db_)(
      "INSERT OR REPLACE INTO results (run_id, attempt_id, event, metrics_json, scores_json, report_json) "
      "VALUES (?, ?, ?, ?, ?, ?)",
      r.run_id, r.attempt_id, r.event, r.metrics_json, r.scores_json, r.report_json)
      .Run();
}

void Store::DropResult(int64_t run_id) {
  (*db_)("DELETE FROM results WHERE run_id = ?", run_id).Run();
  (*db_)("DELETE FROM outputs WHERE run_id = ?", run_id).Run();
  SetAcceptedAttempt(run_id, 0);
}

void Store::PutOutputs(int64_t run_id, const std::vector<FileRow>& files) {
  (*db_)("DELETE FROM outputs WHERE run_id = ?", run_id).Run();
  for (const FileRow& f : files)
    (*db_)("INSERT INTO outputs (run_id, name, path, sha256, bytes) VALUES (?, ?, ?, ?, ?)", run_id, f.name, f.path,
           f.sha256, f.bytes)
        .Run();
}

void Store::PutCheckpoint(int64_t run_id, const std::vector<FileRow>& files) {
  (*db_)("DELETE FROM checkpoint_files WHERE run_id = ?", run_id).Run();
  for (const FileRow& f : files)
    (*db_)("INSERT INTO checkpoint_files (run_id, name, path, sha256, bytes) VALUES (?, ?, ?, ?, ?)", run_id, f.name,
           f.path, f.sha256, f.bytes)
        .Run();
}

void Store::PutWorker(const WorkerRow& r) {
  (*db_)(
      "INSERT INTO workers (worker_id, worker_uuid, name, host, state, slots, threads_per_slot, memory_bytes, "
      "devices_json, trainers_json, version, provenance_json, registered_unix_ms, last_seen_unix_ms, directory_uuid, "
      "device_memory_json, protocol) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (worker_id) DO UPDATE SET name = "
      "excluded.name, "
      "state = excluded.state, slots = excluded.slots, threads_per_slot = excluded.threads_per_slot, "
      "memory_bytes = excluded.memory_bytes, devices_json = excluded.devices_json, trainers_json = "
      "excluded.trainers_json, "
      "version = excluded.version, provenance_json = excluded.provenance_json, last_seen_unix_ms = "
      "excluded.last_seen_unix_ms, directory_uuid = excluded.directory_uuid, device_memory_json = "
      "excluded.device_memory_json, protocol = excluded.protocol",
      r.worker_id, r.worker_uuid, r.name, r.host, r.state, r.slots, r.threads_per_slot, r.memory_bytes, r.devices_json,
      r.trainers_json, r.version, r.provenance_json, r.registered_unix_ms, r.last_seen_unix_ms, r.directory_uuid,
      r.device_memory_json, r.protocol)
      .Run();
}

int64_t Store::NextWorkerId() {
  Query q = (*db_)("SELECT COALESCE(MAX(worker_id), 0) + 1 FROM workers");
  return q.Next() ? q.Int(0) : 0;
}

void Store::AddEvent(int64_t event, int64_t sweep_id, int64_t run_id, int64_t unix_ms) {
  (*db_)("INSERT INTO events (event, sweep_id, run_id, unix_ms) VALUES (?, ?, ?, ?)", event, sweep_id, run_id, unix_ms)
      .Run();
}

void Store::DropEventsUpTo(int64_t event) { (*db_)("DELETE FROM events WHERE event <= ?", event).Run(); }

}  // namespace allometry::coordinator::store
