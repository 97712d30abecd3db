#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

// What the scheduler knows, as plain structs. No clock, database or wire types here.
namespace allometry::scheduler {

// Deliberate mistakes, each caught by the simulation; all off outside of it.
struct TestHooks {
  bool skip_generation_check = false;
  bool reply_before_commit = false;
  bool ignore_dependencies = false;
  bool skip_budget_charge = false;
  bool lease_twice = false;
  bool ignore_retry_limit = false;
  bool ignore_backoff = false;
  bool accept_twice = false;
  bool never_expire = false;
  bool lease_cancelled = false;
  bool part_of_a_gang = false;    // a gang begins with the slots that are free
  bool ignore_lost_rank = false;  // a gang goes on when a rank's worker is gone
  bool overfill_devices = false;  // shares of a GPU are given out whatever is free
};

inline constexpr int kMaxCrashes = 3;        // tries after the first, with 10, 20, 40 s before them
inline constexpr int kMaxOutOfMemory = 3;    // tries after the first, smaller and with more of a GPU
inline constexpr int kMaxPreemptions = 100;  // stops that nobody here asked for, and lost workers that made progress
inline constexpr int64_t kFirstBackoffMs = 10'000;
// How long an attempt whose rank saw another one go waits to hear from that one why.
inline constexpr int64_t kPeerLostWaitMs = 5'000;
inline constexpr int kMaxDevices = 1'024;
// In which a GPU is divided among runs that share it.
inline constexpr int kPartsOfDevice = 16;

// Name of the trainer that comes with the program; the others are users' own.
inline constexpr char kBuiltinTrainer[] = "builtin";

enum class Kind : uint8_t { kPrepare = 1, kPretrain = 2, kFinetune = 3 };
enum class RunState : uint8_t { kPending, kRunning, kDone, kFailed, kDiverged };
enum class SweepState : uint8_t { kActive, kPaused, kCancelled };
enum class Outcome : uint8_t {
  kLive,
  kDone,
  kStopped,  // on request, with a checkpoint
  kConfigError,
  kDataError,
  kDiverged,
  kOutOfMemory,
  kCrash,
  kLimit,              // time or memory limit of the cell
  kLostInput,          // an input could not be fetched
  kLost,               // the lease ran out, or the worker no longer holds it
  kCancelled,          // no live sweep wanted the run when the attempt ended
  kPeerLost,           // of a gang: a rank saw another one go, and nobody said why
  kDeviceLost,         // its GPU is broken
  kDeviceFull,         // its GPU is used by another program
  kDriverTooOld,       // for the trainer's build
  kCollectiveTimeout,  // of a gang: another rank is there and says nothing
};
// Why a pending run does not run, in the order of v1::WaitReason.
enum class WaitReason : uint8_t {
  kNone,
  kReady,
  kParentPending,
  kBlocked,
  kOverBudget,
  kNoFittingWorker,
  kBackoff,
  kPaused,
  kCancelled,
};

const char* OutcomeName(Outcome outcome);
// Whether it is the device that failed, and not the run.
bool IsFaultOfDevice(Outcome outcome);

struct Run {
  int64_t id = 0;
  double flops = 0;  // training FLOPs of all steps
  int64_t steps = 0;
  int64_t memory_bytes = 0;      // predicted peak on one device; 0 = not known
  int64_t replicated_bytes = 0;  // the part of it that every rank of a gang needs; the rest is divided among them
  // The least that a GPU must hold of a rank, at a micro-batch of one sequence: needed whole, and divided among ranks.
  int64_t gpu_whole_bytes = 0;
  int64_t gpu_divided_bytes = 0;
  int64_t checkpoint_step = 0;   // of the newest uploaded resume checkpoint
  int64_t backoff_until_ms = 0;  // boot time; 0 = none
  int64_t live_attempt = 0;      // 0 = none
  int64_t last_worker = 0;       // may hold a newer checkpoint
  uint32_t generation = 0;       // leases so far
  uint32_t micro_batch = 0;      // 0 = as the trainer likes
  uint16_t trainer = 0;          // State::trainers
  uint16_t devices = 1;          // ranks; 0 = the fewest of 1, 2, 4, … that fit
  uint16_t most_devices = 1;     // where that ends: the sequences of a batch
  uint8_t slots_per_gpu = 1;     // 1, 2, 4, 8, 16: so many runs like this one share a GPU; with one rank only
  uint8_t crashes = 0;
  uint8_t out_of_memory = 0;
  uint8_t preemptions = 0;
  Kind kind = Kind::kPretrain;
  RunState state = RunState::kPending;
  bool blocked = false;        // derived: an ancestor failed, diverged, or is done without having kept its outputs
  bool keeps_outputs = false;  // a done run whose outputs its children can fetch
  bool queued = false;         // stands in the ready queues of its sweeps
  std::vector<int64_t> parents;
  std::vector<int64_t> children;
  std::vector<int64_t> sweeps;  // those that have it as a wanted cell, cancelled sweeps included
};

// Order of leases within a sweep: lower first, then the older run. Constant while a run is queued.
struct Policy {
  const char* name;
  double (*rank)(const Run& run);
};
// nullptr: no such policy. The empty name is the default, fewest_flops_first.
const Policy* FindPolicy(const std::string& name);

struct Counts {
  int64_t pending = 0;  // blocked ones included
  int64_t running = 0;
  int64_t done = 0;
  int64_t failed = 0;
  int64_t diverged = 0;
  int64_t blocked = 0;
  int64_t cells() const { return pending + running + done + failed + diverged; }
};

struct ReadyKey {
  double rank = 0;
  int64_t run_id = 0;
  auto operator<=>(const ReadyKey&) const = default;
};

struct Sweep {
  int64_t id = 0;
  int64_t priority = 0;
  const Policy* policy = nullptr;
  SweepState state = SweepState::kActive;
  double budget_flops = 0;  // 0 = none
  double spent_flops = 0;   // steps executed in all attempts that this sweep paid for
  Counts counts;
  std::map<uint16_t, std::set<ReadyKey>> ready;  // by trainer
  // Nothing is left that could change by itself: every cell is terminal or blocked.
  bool finished() const { return counts.cells() > 0 && counts.running == 0 && counts.pending == counts.blocked; }
};

// A GPU of a worker.
struct Device {
  int64_t memory_bytes = 0;  // 0 = not known
  std::string fault;         // why it is out of service; empty: it is in service
};

struct Worker {
  int64_t id = 0;
  int slots = 0;                // attempts at once where there are no devices
  std::vector<Device> devices;  // by number
  std::string kind;  // of its devices, "cpu" without any; empty: several kinds, so that it holds no ranks of gangs
  int64_t memory_bytes = 0;  // 0 = not known
  std::set<uint16_t> trainers;
  bool connected = false;  // its stream is open and it has synced
  bool draining = false;
  int64_t last_heard_ms = 0;
};

// One rank of a live attempt: a slot or a device of a worker, or some parts of a device.
struct Placement {
  int64_t worker_id = 0;
  int device = -1;             // of Worker::devices; -1: a slot, where there are none
  int parts = kPartsOfDevice;  // of the device
  int64_t expires_ms = 0;      // boot time
  bool seen = false;           // the worker has named it as held
  bool finished = false;       // it has ended, and the attempt has not: not expected to be held any more
  uint64_t ordered_in = 0;     // number of the first SyncResponse that carried it; 0 = none yet
  uint64_t told_in = 0;        // number of the first SyncResponse that carried the present rendezvous; 0 = none yet
  bool told = false;           // the worker has that response: the rendezvous need not be carried again
};

// One live attempt. It lives as long as all of its ranks do.
struct Lease {
  int64_t attempt_id = 0;
  int64_t run_id = 0;
  uint32_t generation = 0;
  std::vector<Placement> placements;  // by rank, at least one; rank 0 speaks for the attempt
  int64_t sweep_id = 0;               // whose budget pays
  int64_t first_step = 0;
  int64_t last_step = 0;
  bool first_step_known = false;   // reported by the trainer; until then the checkpoint's
  bool stop = false;               // asked to checkpoint and finish
  bool cancelled = false;          // no live sweep wants the run: its result will not be taken
  bool rank_stopped = false;       // a rank was stopped where it runs: the others are asked to stop too
  std::string rendezvous;          // what rank 0's trainer tells the others
  int64_t peer_lost_until_ms = 0;  // boot time until which the cause of a lost peer is waited for; 0 = none is lost
  std::string peer_lost_message;   // of the rank that saw it first
  int peer_lost_rank = 0;
  // For the live view.
  double loss = 0;
  double tokens_per_second = 0;

  int64_t worker_id() const { return placements.front().worker_id; }
  bool gang() const { return placements.size() > 1; }
  bool IsOn(int64_t worker_id) const;
  // When the first of its ranks is given up, unless it is heard of.
  int64_t expires_ms() const;
};

struct State {
  TestHooks hooks;
  int64_t lease_ttl_ms = 300'000;
  std::deque<Run> runs;  // run_id - 1
  std::map<int64_t, Sweep> sweeps;
  std::set<std::pair<int64_t, int64_t>> sweep_order;  // (-priority, id)
  std::map<int64_t, Worker> workers;
  std::map<int64_t, Lease> leases;                 // by attempt id
  std::set<std::pair<int64_t, int64_t>> backoffs;  // (until_ms, run id)
  std::vector<std::string> trainers;               // names by number
  int64_t next_attempt_id = 1;

  Run* FindRun(int64_t id) { return id >= 1 && id <= static_cast<int64_t>(runs.size()) ? &runs[id - 1] : nullptr; }
  const Run* FindRun(int64_t id) const { return const_cast<State*>(this)->FindRun(id); }
  uint16_t TrainerNumber(const std::string& name);
  bool IsBuiltin(const Run& run) const { return trainers.at(run.trainer) == kBuiltinTrainer; }
};

}  // namespace allometry::scheduler
