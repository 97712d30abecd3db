#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/scheduler/scheduler.h"

// Rows as Core reads and writes them; columns are those of sql/schema.md.
namespace allometry::coordinator::store {

struct SweepRow {
  int64_t sweep_id = 0;
  std::string name;
  std::string description;
  std::string tags_json = "{}";
  std::string spec_json = "{}";
  std::string content_hash;
  std::string request_uuid;
  std::string state = "active";  // expanding, active, paused, cancelled, finished
  std::string policy;
  int64_t priority = 0;
  double budget_flops = 0;
  double spent_flops = 0;
  int64_t limit_seconds = 0;
  int64_t limit_memory_bytes = 0;
  int64_t limit_threads = 0;
  bool activation_checkpointing = false;
  bool keep_models = false;  // of every cell, not only those that fine-tuning starts from
  int64_t submitted_unix_ms = 0;
  int64_t finished_unix_ms = 0;
};

// A table of runs trained elsewhere.
struct ImportedRow {
  std::string name;
  std::string source;   // file that it was read from
  std::string mapping;  // of columns, as it was given
  int64_t runs = 0;
  std::string data;   // records::PackTable
  int64_t bytes = 0;  // of the data, unpacked
};

struct FileRow {
  std::string name;  // role of a raw file, name of an output
  std::string path;  // name of a raw file, place in the output's folder
  std::string sha256;
  int64_t bytes = 0;
  std::string hint;  // raw files: where the submitter saw it
};

struct ParentRow {
  std::string input_name;
  int64_t parent_id = 0;
};

// A run as it is inserted; the scheduler's part comes from `run`.
struct NewRun {
  const scheduler::Run* run = nullptr;
  std::string identity, trainer, run_json, costs_json, precision_asked;
  std::vector<ParentRow> parents;
  std::vector<FileRow> files;
  int64_t created_unix_ms = 0;
};

// What a lease carries to the worker.
struct RunText {
  std::string identity, run_json, precision_asked, precision;
};

struct CellRow {
  int64_t sweep_id = 0;
  std::string name;
  int64_t run_id = 0;
  int64_t position = 0;
  std::string kind, architecture, size;
  uint64_t seed = 0;
  bool wanted = true;
  std::string tags_json = "{}";
  // Of the run; empty in a row to be inserted.
  std::string identity, costs_json, error;
  int64_t started_unix_ms = 0;
  int64_t finished_unix_ms = 0;
  int64_t worker_id = 0;  // of the newest attempt
};

struct WorkerRow {
  int64_t worker_id = 0;
  std::string worker_uuid, name, host;
  std::string state = "connected";  // connected, draining, lost, left
  int64_t slots = 0;
  int64_t threads_per_slot = 0;
  int64_t memory_bytes = 0;
  std::string devices_json = "[]", trainers_json = "[]", version, provenance_json = "{}";
  int64_t registered_unix_ms = 0;
  int64_t last_seen_unix_ms = 0;
  std::string directory_uuid;             // of its work directory; empty: unknown
  std::string device_memory_json = "[]";  // bytes of each device
  int64_t protocol = 2;                   // that it registered with; 2: before this was kept
};

struct AttemptRow {
  int64_t attempt_id = 0;
  int64_t run_id = 0;
  int64_t generation = 0;
  int64_t worker_id = 0;
  int64_t sweep_id = 0;
  std::string outcome;
  bool accepted = false;
  int64_t exit_code = 0;
  int64_t signal = 0;
  std::string message, provenance_json;
  int64_t first_step = 0;
  int64_t last_step = 0;
  int64_t started_unix_ms = 0;
  int64_t ended_unix_ms = 0;
  std::vector<int64_t> rank_workers = {};  // by rank, worker_id first
};

// How an attempt ended, besides what the scheduler decides.
struct AttemptEnd {
  bool accepted = false;
  int64_t exit_code = 0;
  int64_t signal = 0;
  double device_seconds = 0;
  std::string provenance_json = "{}";
};

struct ResultRow {
  int64_t run_id = 0;
  int64_t attempt_id = 0;
  int64_t event = 0;
  std::string metrics_json = "{}", scores_json = "[]", report_json = "{}";
};

const char* KindName(scheduler::Kind kind);
const char* RunStateName(scheduler::RunState state);

}  // namespace allometry::coordinator::store
