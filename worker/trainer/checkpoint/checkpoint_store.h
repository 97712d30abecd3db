#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/checkpoint/safetensors.h"

namespace allometry::trainer {

inline constexpr char kCheckpointJson[] = "checkpoint.json";  // in each checkpoint's folder

// All that a run needs to go on: tensors (weights, optimiser state) and a small JSON state.
struct Checkpoint {
  int64_t step = 0;
  std::map<std::string, at::Tensor> tensors;
  common::Json state;
};

// The checkpoints of one run: folders `step-N` that hold tensors.safetensors and checkpoint.json (step, state, the
// identity of the run, bytes and SHA-256 of the tensors). A folder appears by rename, complete or not at all. The
// newest two are kept. Not thread-safe.
class CheckpointStore {
 public:
  using Log = std::function<void(const std::string&)>;

  // `run_sha256` names the run: a checkpoint of another run is never taken. Leftovers of interrupted writes are
  // removed.
  CheckpointStore(std::filesystem::path directory, std::string run_sha256, Log log);

  // Returns the folder's path. Afterwards only this checkpoint and the next older one are left. `all_read`: called when
  // the tensors are needed no longer (WriteSafetensors).
  common::Result<std::filesystem::path> Save(Checkpoint checkpoint, const std::function<void()>& all_read = nullptr);

  // The valid checkpoint with the highest step among the store's own and `resume` (a folder, or empty), which wins a
  // draw. What is torn, corrupt or another run's is skipped and the reason logged.
  std::optional<Checkpoint> LoadNewest(const std::filesystem::path& resume) const;

  // Reads and verifies one folder.
  common::Result<Checkpoint> Load(const std::filesystem::path& folder) const;

 private:
  std::filesystem::path directory_;
  std::string run_sha256_;
  Log log_;
};

}  // namespace allometry::trainer
