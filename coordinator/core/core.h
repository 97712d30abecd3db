#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "allometry/v1/sweep_service.pb.h"
#include "allometry/v1/worker_service.pb.h"
#include "common/result.h"
#include "coordinator/core/cell.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/store/store.h"

// The coordinator's state and everything that changes it. Single-threaded (one strand owns it) and deterministic: time
// comes in through CoreOptions, nothing is random but the cluster id of a new database.
//
// Changing calls only queue an event. CommitBatch applies what is queued, grants leases, and commits all of it in one
// SQLite transaction; no reply, order or notification leaves before that COMMIT. When the COMMIT fails (disk full),
// every reply of the batch gets the error and the memory state is dropped and read back from SQLite, as after a
// restart.
//
// The owner's loop:  post(event) -> core.Sync(...); if (!scheduled) schedule CommitBatch behind what the strand holds
// already.
//                    After CommitBatch: again while HasQueued(); a timer at NextWakeBootMs() that calls Tick() and
//                    CommitBatch().
namespace allometry::coordinator {

template <typename T>
using Reply = std::function<void(common::Result<T>)>;

// Where Core's own messages go. Called from within CommitBatch, after COMMIT; must not call back into Core (post
// instead).
class Outbox {
 public:
  virtual ~Outbox() = default;
  // A new desired set for a connected worker, besides those that answer its own messages. May be dropped: the next one
  // is complete again.
  virtual void SendOrders(int64_t worker_id, v1::SyncResponse response) = 0;
  // The watch has something new for TakeWatchEvent. Sent once until it is taken.
  virtual void WatchReady(int64_t watch_id) = 0;
};

struct CoreOptions {
  std::function<int64_t()> now_boot_ms;  // decides leases and backoff
  std::function<int64_t()> now_unix_ms;  // for people
  std::function<bool(const std::string& sha256)> has_blob;
  std::string version;
  std::string commit;
  std::string data_dir;
  int64_t lease_ttl_ms = 300'000;
  int64_t renew_interval_ms = 10'000;
  int64_t checkpoint_upload_interval_ms = 900'000;
  int64_t kept_events = 1'000'000;  // older watch tokens expire
  int64_t cells_per_transaction = 1'000;
  scheduler::TestHooks hooks;  // mutants of the simulation; all off
};

class Core {
 public:
  // Reads the state from the store. Every live lease gets a full term from now. `outbox` outlives the core.
  static common::Result<std::unique_ptr<Core>> Open(std::unique_ptr<store::Store> store, CoreOptions options,
                                                    Outbox* outbox);
  ~Core();

  // ---- Events: queued; the reply is called from a later CommitBatch. ----

  // `cells` is the expansion of request.spec. Idempotent by request_uuid, and by name with equal content.
  void Submit(v1::SubmitRequest request, std::vector<Cell> cells, Reply<v1::SubmitResponse> reply);
  void Cancel(v1::CancelRequest request, Reply<v1::CancelResponse> reply);
  void Retry(v1::RetryRequest request, Reply<v1::RetryResponse> reply);
  void Pause(v1::PauseRequest request, Reply<v1::Sweep> reply);
  void Resume(v1::ResumeRequest request, Reply<v1::Sweep> reply);
  void DrainWorker(v1::DrainWorkerRequest request, Reply<v1::DrainWorkerResponse> reply);

  // A table under a name that no sweep has; with `replace` an import of that name may be there. kAlreadyExists else.
  // The reply is the number of runs.
  void Import(store::ImportedRow row, bool replace, Reply<int64_t> reply);
  // kNotFound: no import has that name. The reply is 0.
  void RemoveImport(std::string name, Reply<int64_t> reply);

  // A second registration under the uuid of the first gives the same id. A new process on the same host takes the
  // place of one with its work directory, or with its name if that one is not connected: the old one's leases end at
  // once.
  void Register(v1::RegisterRequest request, Reply<v1::RegisterResponse> reply);
  // The reply is the answer to this message; orders in between come through the outbox, in the same numbering. After an
  // error the owner closes the stream, and the worker sends again what was not acknowledged.
  void Sync(v1::SyncRequest request, Reply<v1::SyncResponse> reply);
  // The worker's stream ended. Leases go on; no orders are sent until it syncs again.
  void Disconnected(int64_t worker_id);
  void Finish(v1::FinishRequest request, Reply<v1::FinishResponse> reply);
  void ReportCheckpoint(v1::ReportCheckpointRequest request, Reply<v1::ReportCheckpointResponse> reply);
  // Time has passed: expired leases, ended backoffs.
  void Tick();

  bool HasQueued() const;
  // When to Tick next, in boot milliseconds; none: nothing is waited for.
  std::optional<int64_t> NextWakeBootMs() const;
  // The error is also what the batch's replies got; the core stays usable.
  common::Status CommitBatch();

  // ---- Reads: answered at once from committed state (call between batches, on the same strand). ----

  // Adds to the expansion what exists already.
  common::Result<v1::PlanResponse> Plan(const std::vector<Cell>& cells);
  common::Result<v1::Sweep> Get(const std::string& sweep);
  common::Result<v1::ListResponse> List(const v1::ListRequest& request);
  common::Result<v1::ExplainResponse> Explain(const v1::ExplainRequest& request);
  // kFailedPrecondition: the cell is not done, or its outputs were not kept.
  common::Result<v1::OutputsResponse> OutputsOfCell(const v1::OutputsRequest& request);
  // blob_bytes and free_disk_bytes are the owner's to fill in.
  v1::StatusResponse Status();
  v1::ListWorkersResponse ListWorkers();
  const std::string& cluster_id() const { return cluster_id_; }
  // Whether an output, a checkpoint or an unfinished run names the blob. For collection.
  common::Result<bool> NamesBlob(const std::string& sha256);
  // "<sweep>/<cell>" and an attempt id (0 = the newest) to what logs are kept under.
  struct AttemptPlace {
    int64_t attempt_id = 0;
    bool live = false;
  };
  common::Result<AttemptPlace> FindAttempt(const std::string& cell, int64_t attempt_id);

  // ---- Watches ----

  // A first event waits at once when there is anything newer than the token. kOutOfRange: the token has expired.
  common::Result<int64_t> OpenWatch(const v1::WatchRequest& request);
  // What changed since the last event, coalesced, at most 1,000 cells; nothing when there is no news. The outbox says
  // when there is more.
  common::Result<std::optional<v1::WatchEvent>> TakeWatchEvent(int64_t watch_id);
  void CloseWatch(int64_t watch_id);

  // ---- For the simulation and tests ----
  const scheduler::State& scheduler_state() const { return state_; }
  store::Store& store() { return *store_; }

 private:
  static constexpr int64_t kReloadIntervalMs = 1'000;
  struct Queued;
  struct Batch;
  struct Submission;
  struct Watch;

  Core(std::unique_ptr<store::Store> store, CoreOptions options, Outbox* outbox);
  common::Status Load();
  scheduler::Worker WorkerOf(const store::WorkerRow& row, scheduler::State& state, int64_t now_ms);
  void Enqueue(std::function<void(Batch&)> apply, std::function<void(const common::Error&)> fail);
  template <typename Response, typename Handler>
  void EnqueueCall(Reply<Response> reply, Handler handler);
  void ChangeState(Reply<v1::Sweep> reply, std::function<common::Result<int64_t>(Batch&)> handler);

  // core_batch.cc
  void Merge(Batch& batch, scheduler::Actions actions);
  void Merge(Batch& batch, scheduler::Actions actions, const store::AttemptEnd& end);
  std::string MessageOf(const scheduler::ClosedAttempt& closed) const;
  void Persist(Batch& batch);
  void PersistAttempts(Batch& batch);
  void InheritPrecision(int64_t run_id);
  void PersistSweep(Batch& batch, int64_t sweep_id);
  void PersistWorker(Batch& batch, int64_t worker_id);
  void RecordEvents(Batch& batch);
  void Deliver(Batch& batch);
  void CountBatch(size_t events);
  common::Status FailQueue(Batch& batch, const common::Error& error);
  common::Status FailBatch(Batch& batch, const common::Error& error);

  // core_sweeps.cc
  void ApplySubmit(Batch& batch, const v1::SubmitRequest& request, std::shared_ptr<Submission> submission);
  void ReplyToSubmission(Batch& batch, std::shared_ptr<Submission> submission, int64_t sweep_id);
  void ContinueSweep(Batch& batch, std::shared_ptr<Submission> submission, int64_t sweep_id, bool repeated);
  void UpdateSweep(Batch& batch, std::shared_ptr<Submission> submission, int64_t sweep_id);
  void BeginSubmission(Batch& batch, std::shared_ptr<Submission> submission);
  void RunSubmission(Batch& batch);
  void AddCells(Batch& batch, Submission& submission, size_t count);
  int64_t AddRun(Batch& batch, Submission& submission, const Cell& cell);
  void CompleteSubmission(Batch& batch, std::shared_ptr<Submission> submission);
  common::Result<v1::CancelResponse> ApplyCancel(Batch& batch, const v1::CancelRequest& request);
  common::Result<int64_t> ApplyImport(Batch& batch, const store::ImportedRow& row, bool replace);
  common::Result<v1::RetryResponse> ApplyRetry(Batch& batch, const v1::RetryRequest& request);
  common::Result<int64_t> ApplyPause(Batch& batch, const std::string& sweep, bool paused, bool kill_running);
  common::Result<std::vector<int64_t>> RunsOfCells(int64_t sweep_id, const std::string& sweep,
                                                   const google::protobuf::RepeatedPtrField<std::string>& names);
  std::vector<int64_t> WithDescendants(int64_t sweep_id, std::vector<int64_t> runs) const;
  void CollectRetries(const scheduler::Run& run, std::set<int64_t>* retries) const;

  // core_workers.cc
  common::Result<v1::RegisterResponse> ApplyRegister(Batch& batch, const v1::RegisterRequest& request);
  void ReplaceWorker(Batch& batch, const v1::RegisterRequest& request);
  common::Result<v1::DrainWorkerResponse> ApplyDrain(Batch& batch, const v1::DrainWorkerRequest& request);
  bool ApplySync(Batch& batch, const v1::SyncRequest& request);
  void FixPrecision(const v1::HeldLease& held);
  template <typename Message>
  void KeepMetricsAndLogs(const Message& message, int64_t worker_id);
  common::Result<v1::FinishResponse> ApplyFinish(Batch& batch, v1::FinishRequest request);
  v1::FinishResponse AnswerOfClosed(const v1::FinishRequest& request);
  int64_t BatchSequencesOf(int64_t run_id);
  common::Result<v1::ReportCheckpointResponse> ApplyCheckpoint(Batch& batch,
                                                               const v1::ReportCheckpointRequest& request);
  bool KeepCheckpoint(Batch& batch, const scheduler::CheckpointReported& report, const v1::Output& checkpoint);
  template <typename Outputs>
  common::Status RequireBlobs(const Outputs& outputs) const;
  void AcceptResult(const v1::FinishRequest& request);
  common::Result<v1::SyncResponse> OrdersFor(int64_t worker_id);
  void AddAssignment(scheduler::Lease& lease, size_t rank, v1::SyncResponse* response);
  v1::RunSpec SpecOf(const scheduler::Lease& lease);

  // core_watch.cc
  void RestartWatch(Watch& watch);
  void MarkWatches(int64_t sweep_id, int64_t run_id);
  void NotifyWatch(int64_t watch_id, Watch& watch);
  void TakeFromPage(Watch& watch, const std::string& sweep, v1::WatchEvent* event);
  void TakeDirty(Watch& watch, const std::string& sweep, v1::WatchEvent* event);

  // core_reads.cc
  common::Result<int64_t> SweepIdOf(const std::string& name) const;
  v1::Sweep SweepMessage(int64_t sweep_id) const;
  v1::CellStatus CellMessage(const store::CellRow& row, const std::string& sweep, bool with_results);
  v1::WorkerInfo WorkerMessage(const store::WorkerRow& row) const;
  common::Result<v1::ListResponse> ListCells(const v1::ListRequest& request);
  common::Result<store::CellRow> FindCell(const std::string& cell);
  std::string WorkerName(int64_t worker_id) const;
  std::string WorkerNames(const scheduler::Lease& lease) const;
  std::string ExplainPlaces(const scheduler::Run& run) const;
  std::string MixedWorkers() const;
  std::string FaultyDevices() const;
  std::string ExplainText(const v1::CellStatus& cell, const v1::ExplainResponse& response) const;

  std::unique_ptr<store::Store> store_;
  CoreOptions options_;
  Outbox* outbox_;
  std::string cluster_id_;
  int64_t started_unix_ms_ = 0;
  std::string storage_error_;  // why writes fail now
  bool loaded_ = false;        // false: the state could not be read back after a failed batch

  scheduler::State state_;
  std::map<int64_t, store::SweepRow> sweeps_;
  std::map<std::string, int64_t> sweep_ids_;
  std::map<int64_t, store::WorkerRow> workers_;
  std::set<int64_t> precision_known_;  // live attempts whose precision is stored
  // Of live gangs: how the first of their ranks to go has ended; forgotten at a restart.
  std::map<int64_t, store::AttemptEnd> noted_ends_;

  // What a worker's stream has seen; forgotten at a restart.
  struct Session {
    bool connected = false;
    uint64_t last_request = 0;
    uint64_t last_response = 0;
    uint64_t committed_request = 0;
  };
  std::map<int64_t, Session> sessions_;
  uint64_t response_base_ = 0;  // from the count of starts, so that numbers grow across restarts

  std::deque<Queued> queue_;
  std::deque<std::shared_ptr<Submission>> submissions_;  // being expanded, a transaction each at a time
  std::map<int64_t, std::unique_ptr<Watch>> watches_;
  int64_t next_watch_ = 1;
  int64_t last_event_ = 0;
  int64_t first_event_ = 0;  // the oldest token that can be answered
  std::vector<int64_t> batch_histogram_;
};

}  // namespace allometry::coordinator
