#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "allometry/v1/worker_service.pb.h"
#include "worker/daemon/blob_cache.h"
#include "worker/daemon/coordinator_client.h"
#include "worker/daemon/file_finder.h"
#include "worker/daemon/lease.h"
#include "worker/daemon/options.h"
#include "worker/daemon/reconcile.h"
#include "worker/daemon/report_queues.h"
#include "worker/daemon/run_directory.h"
#include "worker/daemon/uploads.h"
#include "worker/supervisor/event_tailer.h"
#include "worker/supervisor/supervisor.h"

namespace allometry::worker {

// What all attempts of a worker share. Everything in it is thread-safe and outlives them.
struct Services {
  const WorkerOptions& options;
  CoordinatorClient& client;
  Supervisor& supervisor;
  BlobCache& blobs;
  FileFinder& files;
  std::function<void(bool urgent)> changed;  // something to tell the coordinator
  // The device of a slot failed, not the run: said before the attempt's end is told. `exit_class`: how.
  std::function<void(int slot, ExitClass exit_class, const std::string& words)> device_failed;
  std::atomic<int64_t> devices_lost{0};  // counts up: after each CUDA may number the others anew
  std::atomic<int64_t> worker_id{0};
  std::atomic<int64_t> lease_ttl_ms{300'000};
  std::atomic<int64_t> checkpoint_upload_interval_ms{900'000};
};

inline constexpr int kParts = 16;  // of a device

// Where an attempt runs.
struct Place {
  int slot = -1;                         // of the worker, a device's number where it has any; -1: none is held
  int parts = kParts;                    // of the device
  std::string device = "cpu";            // or what the trainer calls it
  bool kernels = false, graphs = false;  // of the built-in trainer, there
};

// One rank of a lease: fetches the inputs, runs the trainer, passes on what it tells, uploads what it leaves, finishes.
// A thread of its own does the work; the public functions are thread-safe and never block on it. Of a gang's ranks
// after 0 only logs and the end are passed on: rank 0 speaks for all.
class Attempt {
 public:
  // `refuse`: give the lease back as stopped without running anything.
  Attempt(Services& services, const v1::Assignment& assignment, Place place, bool refuse);
  ~Attempt();  // waits for the thread

  void RequestStop();                            // checkpoint, finish as stopped
  void Drop();                                   // stop with a checkpoint on this machine; nobody wants to hear of it
  void Abandon();                                // at once
  void SetRendezvous(const std::string& value);  // what rank 0 tells this one
  bool ended() const { return ended_; }

  int64_t run_id() const { return run_id_; }
  RankId id() const { return {attempt_id_, rank_}; }
  int64_t generation() const { return generation_; }
  const Place& place() const { return place_; }

  // What a message tells of this attempt. `room_bytes` shrinks by what metrics and logs take.
  void Report(uint64_t number, v1::SyncRequest* request, int64_t* room_bytes);
  // A message that was sent at `sent_ms`, and all before it, took effect.
  void Acknowledge(uint64_t number, int64_t sent_ms);
  void Rewind();      // the stream broke
  bool HasPending();  // something waits that no message carries yet
  bool Backlogged();  // so much of it that messages should follow one another without pause

 private:
  using Outcome = v1::FinishRequest;
  struct CheckpointUpload {
    int64_t step = -1;
    std::future<bool> done;
  };

  void RunThread();
  Outcome Execute();
  Outcome Ended(Outcome::Outcome outcome, const std::string& message) const;
  std::string TrainerName() const;
  common::Result<TrainerSpec> PrepareTrainer(Outcome::Outcome* on_error);
  common::Status FetchInputs(common::Json* execution);
  common::Status FetchRawFiles(common::Json* files);
  common::Status PlaceOutput(const v1::Output& output, const std::filesystem::path& target);
  common::Status FetchCheckpoint(common::Json* execution);
  common::Json BaseExecution() const;
  bool WaitForLease();
  ProcessEnd Supervise(Supervisor::TrainerId id);
  void ActOnStops(Supervisor::TrainerId id);
  void PassRendezvous();
  void TailEvents(bool to_the_end);
  void OnEvent(int64_t offset, const common::Json& event);
  void OnRendezvous(const common::Json& event);
  std::string StreamName(const char* stream) const;
  void StartCheckpointUpload(bool at_stop);
  bool UploadCheckpoint(const LocalCheckpoint& checkpoint);
  void Deliver(Outcome finish);
  common::Status UploadOutputs(Outcome* finish);
  void DrainReports();
  void SendFinish(Outcome finish);
  void SetPhase(v1::HeldLease::Phase phase);
  bool Wanted() const { return !dropped_; }
  bool Going() const { return !dropped_ && !stop_; }
  Alive WhileWanted() const;

  Services& services_;
  const v1::RunSpec spec_;
  const int64_t run_id_, attempt_id_, generation_;
  const int64_t rank_, ranks_;
  const bool one_worker_;  // all ranks are here
  const Place place_;
  const int64_t devices_lost_;  // when the place was chosen
  const bool refuse_;
  const RunDirectory directory_;

  std::atomic<bool> stop_{false}, dropped_{false}, abandoned_{false}, ended_{false};

  // The thread's own.
  EventTailer tailer_;
  bool stop_sent_ = false, kill_sent_ = false, lease_lost_ = false;
  common::Json result_, provenance_ = common::Json::object();
  bool has_result_ = false;
  int64_t micro_batch_ = 0;  // that the trainer told not to fit; 0 = none
  LocalCheckpoint newest_;
  int64_t uploaded_step_ = -1, next_upload_ms_ = 0;
  CheckpointUpload upload_;
  std::vector<Package> packages_;

  std::mutex mutex_;
  v1::HeldLease held_;         // guarded by mutex_
  bool started_ = false;       // guarded by mutex_; the trainer said where it starts
  std::string rendezvous_;     // guarded by mutex_; to be written for the trainer; empty: nothing new
  MetricQueue metrics_;        // guarded by mutex_
  LogQueue stdout_, stderr_;   // guarded by mutex_
  LeaseClock lease_;           // guarded by mutex_
  uint64_t first_number_ = 0;  // guarded by mutex_; first message that named the lease
  std::thread thread_;
};

}  // namespace allometry::worker
