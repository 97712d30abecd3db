#include "worker/daemon/run_directory.h"

#include <algorithm>

#include "common/files.h"
#include "worker/daemon/blob_cache.h"
#include "worker/supervisor/event_tailer.h"

namespace allometry::worker {
namespace fs = std::filesystem;

RunDirectory::RunDirectory(const fs::path& work_directory, int64_t run_id, int64_t attempt_id, int64_t rank)
    : path_(work_directory / "runs" /
            (std::to_string(run_id) + (rank > 0 ? ".rank-" + std::to_string(rank) : std::string()))),
      attempt_(path_ / "attempts" / std::to_string(attempt_id)) {}

common::Status RunDirectory::Prepare(const std::string& identity) const {
  std::error_code ec;
  auto known = common::ReadFile(path_ / "identity");
  if (!known || *known != identity) fs::remove_all(path_, ec);
  fs::remove_all(attempt_, ec);
  fs::remove(rendezvous_path(), ec);  // of another attempt
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(attempt_));
  RemoveSnapshots();
  return common::WriteFileAtomically(path_ / "identity", identity);
}

LocalCheckpoint RunDirectory::NewestCheckpoint() const {
  LocalCheckpoint newest;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(path_ / "attempts", ec)) {
    EventTailer tailer(entry.path() / "events.jsonl");
    auto look = [&](int64_t, const common::Json& event) {
      if (event["event"] != "checkpoint") return;
      const int64_t step = IntegerOr(event, "step", -1);
      auto path = Resolve(TextOr(event, "path", ""));
      if (path && step > newest.step) newest = {step, *path};
    };
    while (tailer.Poll(look)) {
    }
  }
  return newest;
}

common::Result<fs::path> RunDirectory::Resolve(const std::string& relative) const {
  std::error_code ec;
  const fs::path target = fs::weakly_canonical(path_ / relative, ec);
  const fs::path root = fs::weakly_canonical(path_, ec);
  const auto ends = std::mismatch(root.begin(), root.end(), target.begin(), target.end());
  if (relative.empty() || ends.first != root.end() || target == root)
    return common::InvalidArgument("'" + relative + "' is not a path inside the run directory");
  if (!fs::exists(target, ec)) return common::NotFound("'" + relative + "' is not in the run directory");
  return target;
}

common::Result<fs::path> RunDirectory::Snapshot(const LocalCheckpoint& checkpoint) const {
  const fs::path target = path_ / ".snapshots" / std::to_string(checkpoint.step) / checkpoint.path.filename();
  std::error_code ec;
  fs::remove_all(target.parent_path(), ec);
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(target.parent_path()));
  if (fs::is_directory(checkpoint.path, ec)) {
    fs::copy(checkpoint.path, target, fs::copy_options::recursive | fs::copy_options::create_hard_links, ec);
  } else {
    fs::create_hard_link(checkpoint.path, target, ec);
  }
  if (ec) return common::NotFound("the checkpoint '" + checkpoint.path.string() + "' went away: " + ec.message());
  return target;
}

void RunDirectory::RemoveSnapshots() const {
  std::error_code ec;
  fs::remove_all(path_ / ".snapshots", ec);
}

common::Status RunDirectory::WriteRunJson(const std::string& run_json, const common::Json& execution) const {
  auto parsed = common::ParseJson(run_json, "the assignment's run object");
  if (!parsed) return parsed.error();
  if (!parsed->is_object()) return common::InvalidArgument("the assignment's run object is no JSON object");
  return common::WriteFileAtomically(
      path_ / "run.json", "{\"contract_version\":1,\"run\":" + run_json + ",\"execution\":" + execution.dump() + "}\n");
}

common::Status RunDirectory::WriteRendezvous(const std::string& value) const {
  return common::WriteFileAtomically(rendezvous_path(), value);
}

void RunDirectory::Clean() const {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(path_, ec)) {
    if (entry.path().filename() != "attempts") fs::remove_all(entry.path(), ec);
  }
  for (const auto& entry : fs::directory_iterator(path_ / "attempts", ec))
    fs::remove(entry.path() / "events.jsonl", ec);
}

}  // namespace allometry::worker
