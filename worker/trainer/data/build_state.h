#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "common/files.h"
#include "common/json.h"
#include "common/result.h"

namespace allometry::trainer {

// What to do with the unfinished build of another recipe that lies in the way.
enum class OnOtherRecipe { kRefuse, kBuildAnew };

// The folder in which a data set is built, `<output>.partial`: the data set so far in data/, what its stages need in
// work/, and in state.json the recipe and what each finished stage found. A process that is killed at any moment leaves
// a folder from which the next one goes on. One process at a time holds it. Not thread-safe.
class BuildState {
 public:
  // Opens the folder of the same `recipe`, or makes a new one. kUnavailable: another process builds there;
  // kFailedPrecondition (kRefuse only): the folder belongs to another recipe.
  static common::Result<BuildState> Open(const std::filesystem::path& folder, const common::Json& recipe,
                                         OnOtherRecipe on_other);

  std::filesystem::path data() const { return folder_ / "data"; }
  std::filesystem::path work() const { return folder_ / "work"; }

  // What the stage saved; null if it did not yet.
  const common::Json* Find(const std::string& stage) const;
  // Remembers it on the disk, in place of what the stage saved before. What it stands for must be on the disk already.
  common::Status Save(const std::string& stage, common::Json value);

  // Moves data/ to `output`, in place of what lies there, and removes the rest.
  common::Status Publish(const std::filesystem::path& output);
  // Removes everything.
  void Discard();

 private:
  BuildState(std::filesystem::path folder, common::FileLock lock)
      : folder_(std::move(folder)), lock_(std::move(lock)) {}
  std::filesystem::path folder_;
  common::FileLock lock_;
  common::Json state_;
};

}  // namespace allometry::trainer
