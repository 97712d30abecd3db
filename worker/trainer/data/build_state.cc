#include "worker/trainer/data/build_state.h"

#include <vector>

#include "common/fault_point.h"
#include "worker/trainer/data/format.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

constexpr char kStateFile[] = "state.json", kLockFile[] = "lock";

// What a folder must agree in for its stages to count.
Json KeyOf(const Json& recipe) {
  return {{"format_version", kDataFormatVersion}, {"numerics_version", kDataNumericsVersion}, {"recipe", recipe}};
}

// What stands in the folder, null if nothing that can be read does.
Json StateIn(const fs::path& folder) {
  const auto state = common::ReadJsonFile(folder / kStateFile);
  return state && state->is_object() && state->contains("key") && state->contains("stages") ? *state : Json();
}

void RemoveAllBut(const fs::path& folder, const char* kept) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().filename() != kept) fs::remove_all(entry.path(), ignored);
}

// What WriteFileAtomically leaves of a process that was killed in it.
void RemoveTemporaries(const fs::path& folder) {
  std::error_code ignored;
  std::vector<fs::path> left;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder, ignored))
    if (entry.path().extension().string().starts_with(".tmp")) left.push_back(entry.path());
  for (const fs::path& path : left) fs::remove(path, ignored);
}

}  // namespace

common::Result<BuildState> BuildState::Open(const fs::path& folder, const Json& recipe, OnOtherRecipe on_other) {
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder));
  auto lock = common::FileLock::Acquire(folder / kLockFile);
  if (!lock && lock.error().code == common::ErrorCode::kFailedPrecondition)
    return common::Unavailable("another process builds in '" + folder.string() +
                               "': wait for its end, or name another folder");
  if (!lock) return lock.error();
  BuildState build(folder, std::move(*lock));
  build.state_ = StateIn(folder);
  if (build.state_.is_object() && build.state_["key"] != KeyOf(recipe)) {
    if (on_other == OnOtherRecipe::kRefuse)
      return common::FailedPrecondition("'" + folder.string() +
                                        "' is the unfinished build of other files or options: remove it, name another "
                                        "folder, or give the command that began it");
    build.state_ = Json();
  }
  if (build.state_.is_null()) {
    RemoveAllBut(folder, kLockFile);
    build.state_ = {{"key", KeyOf(recipe)}, {"stages", Json::object()}};
  }
  RemoveTemporaries(folder);
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(build.data()));
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(build.work()));
  return build;
}

const Json* BuildState::Find(const std::string& stage) const {
  const auto found = state_["stages"].find(stage);
  return found == state_["stages"].end() ? nullptr : &*found;
}

common::Status BuildState::Save(const std::string& stage, Json value) {
  state_["stages"][stage] = std::move(value);
  ALLO_RETURN_IF_ERROR(common::SyncDirectory(data()));
  ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder_ / kStateFile, state_.dump()));
  common::FaultPoint("trainer.data_stage");
  return common::Ok();
}

common::Status BuildState::Publish(const fs::path& output) {
  std::error_code error;
  fs::remove_all(output, error);
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(data()))
    if (entry.is_directory()) ALLO_RETURN_IF_ERROR(common::SyncDirectory(entry.path()));
  ALLO_RETURN_IF_ERROR(common::SyncDirectory(data()));
  fs::rename(data(), output, error);
  if (error)
    return common::FailedPrecondition("cannot rename '" + data().string() + "' to '" + output.string() +
                                      "': " + error.message());
  ALLO_RETURN_IF_ERROR(common::SyncDirectory(output.parent_path()));
  Discard();
  return common::Ok();
}

void BuildState::Discard() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace allometry::trainer
