#include "worker/trainer/checkpoint/checkpoint_store.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "common/fault_point.h"
#include "common/files.h"
#include "common/sha256.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::DataLoss;
using common::Json;
using common::Result;

constexpr int kFormatVersion = 1;
constexpr const char* kTensorsName = "tensors.safetensors";
constexpr const char* kUnfinishedPrefix = ".unfinished-";

struct Candidate {
  int64_t step;
  fs::path folder;
};

std::optional<int64_t> StepOfName(const std::string& name) {
  if (name.rfind("step-", 0) != 0) return std::nullopt;
  int64_t step = 0;
  auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

// The store's folders, newest first.
std::vector<Candidate> ListFolders(const fs::path& directory) {
  std::vector<Candidate> found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(directory, ec))
    if (auto step = StepOfName(entry.path().filename().string())) found.push_back({*step, entry.path()});
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.step > b.step; });
  return found;
}

Result<Json> ReadState(const fs::path& folder) {
  auto state = common::ReadJsonFile(folder / kCheckpointJson);
  if (!state) return DataLoss(state.error().message);
  if (!state->is_object() || state->value("format_version", 0) != kFormatVersion)
    return DataLoss("'" + (folder / kCheckpointJson).string() + "' is no checkpoint of format " +
                    std::to_string(kFormatVersion));
  return state;
}

// The step that a folder claims to hold; -1 if it cannot be read.
int64_t ClaimedStep(const fs::path& folder) {
  auto state = ReadState(folder);
  return state && state->contains("step") && (*state)["step"].is_number_integer() ? (*state)["step"].get<int64_t>()
                                                                                  : -1;
}

common::Error RenameError(const fs::path& folder, const std::error_code& ec) {
  return common::FailedPrecondition("cannot put the checkpoint at '" + folder.string() + "': " + ec.message());
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path directory, std::string run_sha256, Log log)
    : directory_(std::move(directory)), run_sha256_(std::move(run_sha256)), log_(std::move(log)) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(directory_, ec))
    if (entry.path().filename().string().rfind(kUnfinishedPrefix, 0) == 0) fs::remove_all(entry.path(), ec);
}

Result<fs::path> CheckpointStore::Save(Checkpoint checkpoint, const std::function<void()>& all_read) {
  const std::string name = "step-" + std::to_string(checkpoint.step);
  const fs::path folder = directory_ / name, unfinished = directory_ / (kUnfinishedPrefix + name);
  std::error_code ec;
  fs::remove_all(unfinished, ec);
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(unfinished));
  ALLO_ASSIGN_OR_RETURN(const std::string sha256,
                        WriteSafetensors(unfinished / kTensorsName, {std::move(checkpoint.tensors), {}}, all_read));
  const Json state{{"format_version", kFormatVersion},
                   {"run_sha256", run_sha256_},
                   {"step", checkpoint.step},
                   {"state", checkpoint.state},
                   {"tensors_sha256", sha256}};
  ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(unfinished / kCheckpointJson, state.dump() + "\n"));
  common::FaultPoint("trainer.checkpoint_written");
  fs::remove_all(folder, ec);  // one that was skipped as corrupt
  fs::rename(unfinished, folder, ec);
  if (ec) return RenameError(folder, ec);
  ALLO_RETURN_IF_ERROR(common::SyncDirectory(directory_));
  common::FaultPoint("trainer.checkpoint_placed");
  int64_t older_kept = 0;
  for (const Candidate& other : ListFolders(directory_)) {
    if (other.step == checkpoint.step || (other.step < checkpoint.step && older_kept++ == 0)) continue;
    fs::remove_all(other.folder, ec);
  }
  return folder;
}

Result<Checkpoint> CheckpointStore::Load(const fs::path& folder) const {
  ALLO_ASSIGN_OR_RETURN(const Json state, ReadState(folder));
  try {
    if (state.at("run_sha256").get<std::string>() != run_sha256_)
      return common::FailedPrecondition("'" + folder.string() + "' is the checkpoint of another run");
    ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(folder / kTensorsName));
    if (sha256 != state.at("tensors_sha256").get<std::string>())
      return DataLoss("the bytes of '" + (folder / kTensorsName).string() + "' are not those that were written");
    ALLO_ASSIGN_OR_RETURN(TensorFile file, ReadSafetensors(folder / kTensorsName));
    return Checkpoint{state.at("step").get<int64_t>(), std::move(file.tensors), state.at("state")};
  } catch (const Json::exception& e) {
    return DataLoss("'" + (folder / kCheckpointJson).string() + "' is malformed: " + e.what());
  }
}

std::optional<Checkpoint> CheckpointStore::LoadNewest(const fs::path& resume) const {
  std::vector<Candidate> candidates = ListFolders(directory_);
  if (!resume.empty()) candidates.insert(candidates.begin(), {ClaimedStep(resume), resume});
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.step > b.step; });
  for (const Candidate& candidate : candidates) {
    auto checkpoint = Load(candidate.folder);
    if (checkpoint) return std::move(*checkpoint);
    log_("checkpoint skipped: " + checkpoint.error().message);
  }
  return std::nullopt;
}

}  // namespace allometry::trainer
