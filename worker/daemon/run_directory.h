#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/json.h"
#include "common/result.h"

namespace allometry::worker {

// A checkpoint in a run directory; an empty path: none.
struct LocalCheckpoint {
  int64_t step = -1;
  std::filesystem::path path;
  explicit operator bool() const { return !path.empty(); }
};

// One run's folder in the work directory and what lies where. It survives from attempt to attempt:
//   identity                 the run's identity; a folder of another run under the same number is emptied
//   run.json, inputs/<name>/, resume/, attempts/<attempt_id>/{events.jsonl,stdout.log,stderr.log}
//   and whatever the trainer writes.
// The ranks of a gang after 0 have a folder each beside it, which nothing is resumed from.
class RunDirectory {
 public:
  RunDirectory(const std::filesystem::path& work_directory, int64_t run_id, int64_t attempt_id, int64_t rank = 0);

  // Makes the folder for this attempt.
  common::Status Prepare(const std::string& identity) const;
  // The checkpoint with the highest step that an earlier attempt reported and that is still there.
  LocalCheckpoint NewestCheckpoint() const;
  // The path that a `checkpoint` or `result` event names, if it is inside the folder and exists.
  common::Result<std::filesystem::path> Resolve(const std::string& relative) const;
  // A copy by hard links that the trainer cannot remove or replace while it is uploaded.
  common::Result<std::filesystem::path> Snapshot(const LocalCheckpoint& checkpoint) const;
  void RemoveSnapshots() const;
  // `run_json` goes in verbatim: the bytes that were hashed are the bytes that the trainer reads.
  common::Status WriteRunJson(const std::string& run_json, const common::Json& execution) const;
  // Removes everything but the attempts' logs.
  void Clean() const;
  // What rank 0's trainer tells the others stands in this file: it writes it itself, the others' workers for them.
  common::Status WriteRendezvous(const std::string& value) const;
  std::filesystem::path rendezvous_path() const { return path_ / "rendezvous"; }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path attempt_path() const { return attempt_; }
  std::filesystem::path events_path() const { return attempt_ / "events.jsonl"; }
  std::filesystem::path stdout_path() const { return attempt_ / "stdout.log"; }
  std::filesystem::path stderr_path() const { return attempt_ / "stderr.log"; }

 private:
  std::filesystem::path path_, attempt_;
};

}  // namespace allometry::worker
