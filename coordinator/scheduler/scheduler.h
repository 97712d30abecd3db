#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/scheduler/state.h"

// The decisions of the coordinator as functions (state, event, now) -> actions: leases, dependencies, order, retries,
// budgets, pausing, cancelling, draining. Pure: the caller persists and sends what the actions name. `now_ms` is boot
// time.
namespace allometry::scheduler {

// ---- Events ----

struct AddSweep {
  Sweep sweep;
};
// A run that no sweep wants yet. run.id is the number of runs + 1; parents stand in the state already.
struct AddRun {
  Run run;
};
struct AttachCells {
  int64_t sweep_id = 0;
  std::vector<int64_t> runs;
};
struct DetachCells {
  int64_t sweep_id = 0;
  std::vector<int64_t> runs;
};
struct ChangeSweep {
  int64_t sweep_id = 0;
  SweepState state = SweepState::kActive;
  bool kill_running = false;
};
struct ConfigureSweep {
  int64_t sweep_id = 0;
  int64_t priority = 0;
  const Policy* policy = nullptr;
  double budget_flops = 0;
};
// Failed and diverged runs, and done ones that did not keep their outputs, go back to pending.
struct RetryRuns {
  std::vector<int64_t> runs;
};

struct WorkerJoined {
  Worker worker;
};
struct WorkerDisconnected {
  int64_t worker_id = 0;
};
// Its process is known to be gone: leases end at once.
struct WorkerGone {
  int64_t worker_id = 0;
};
struct DrainWorker {
  int64_t worker_id = 0;
  bool now = false;
};

struct SetDevices {
  int64_t run_id = 0;
  uint16_t devices = 1;
  uint16_t most_devices = 1;
  int64_t replicated_bytes = 0;
  uint8_t slots_per_gpu = 1;
  int64_t gpu_whole_bytes = 0;
  int64_t gpu_divided_bytes = 0;
};

struct HeldLease {
  int64_t attempt_id = 0;
  int64_t generation = 0;
  bool started = false;  // the trainer has said at which step it starts
  int64_t resumed_step = 0;
  int64_t step = 0;
  double loss = 0;
  double tokens_per_second = 0;
  int rank = 0;
  std::string rendezvous = {};
};
struct WorkerSynced {
  int64_t worker_id = 0;
  uint64_t acknowledged = 0;  // newest response applied
  std::vector<HeldLease> held;
  bool draining = false;
  bool leaving = false;
  std::map<int, std::string> faults = {};  // why devices are out of service, by number; complete
};
// One rank has ended.
struct AttemptFinished {
  int64_t run_id = 0;
  int64_t attempt_id = 0;
  int64_t generation = 0;
  Outcome outcome = Outcome::kCrash;
  int64_t last_step = 0;
  bool keeps_outputs = false;
  int64_t micro_batch = 0;      // that did not fit, as the trainer told; 0 = it did not tell
  int64_t batch_sequences = 0;  // of a trainer that does not tell and chose the micro-batch itself; 0 = not known
  std::string message;
  std::optional<int64_t> resumed_step = std::nullopt;  // where the trainer started, if it did
  int rank = 0;
};
struct CheckpointReported {
  int64_t run_id = 0;
  int64_t attempt_id = 0;
  int64_t generation = 0;
  int64_t step = 0;
};
// Leases that ran out, backoffs that ended, workers not heard of, lost peers whose cause nobody told.
struct Tick {};
// Grants leases to what may run. Once per batch of events.
struct Dispatch {};

using Event = std::variant<AddSweep, AddRun, SetDevices, AttachCells, DetachCells, ChangeSweep, ConfigureSweep,
                           RetryRuns, WorkerJoined, WorkerDisconnected, WorkerGone, DrainWorker, WorkerSynced,
                           AttemptFinished, CheckpointReported, Tick, Dispatch>;

// ---- Actions ----

struct ClosedAttempt {
  Lease lease;
  Outcome outcome = Outcome::kLost;
  std::string message;
  int rank = 0;  // whose end it was
};

struct Actions {
  bool accepted = false;   // of AttemptFinished and CheckpointReported: the lease was the run's current one
  bool noted = false;      // of AttemptFinished: a rank has ended, and its attempt goes on for now
  bool cancelled = false;  // of AttemptFinished: the lease was current, but nobody wants the result
  std::vector<Lease> opened;
  std::vector<ClosedAttempt> closed;
  std::set<int64_t> runs;     // to be written: state, counters, generation
  std::set<int64_t> sweeps;   // to be written: spending, counts, state
  std::set<int64_t> leases;   // attempts whose steps or marks changed
  std::set<int64_t> workers;  // whose orders or state changed
};

Actions Step(State& state, const Event& event, int64_t now_ms);

// ---- Views ----

// The run's live lease if the attempt is it, in its generation; else nullptr.
const Lease* CurrentLease(const State& state, int64_t run_id, int64_t attempt_id, int64_t generation);
WaitReason WaitReasonOf(const State& state, const Run& run);
double ReservedFlops(const State& state, int64_t sweep_id);
// What a sweep may still promise; infinite without a budget. The one place where it is computed: two orders of adding
// the same doubles would let a run look affordable here and not there.
double UnpromisedFlops(const State& state, const Sweep& sweep);
double FlopsOfSteps(const Run& run, int64_t steps);
// Of a run that is to run from its checkpoint to its end.
double RestFlops(const Run& run);
// Slots that hold a rank; of a worker with devices those that hold any.
int BusySlots(const State& state, int64_t worker_id);
// Slots that hold none; of a worker with devices only those in service.
int FreeSlots(const State& state, const Worker& worker);
bool IsWanted(const State& state, const Run& run);  // by a sweep that is not cancelled
// Whether the connected workers could run it if nothing else ran.
bool HasFittingWorker(const State& state, const Run& run);
std::optional<int64_t> NextWakeMs(const State& state);
// After reading states from a store: sets blocked, queues and counts.
void Rebuild(State& state, int64_t now_ms);

}  // namespace allometry::scheduler
