#include "cli/task_files.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "coordinator/grid/known_tasks.h"

namespace allometry::cli {
namespace {

namespace fs = std::filesystem;
using coordinator::KnownData;

// As benchmarks' folders are called by those who keep them.
std::vector<std::string> FolderNames(std::string_view benchmark) {
  if (benchmark == "glue") return {"glue", "GLUE"};
  if (benchmark == "superglue") return {"superglue", "SuperGLUE", "super_glue"};
  return {"squad", "SQuAD"};
}

bool IsThere(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::optional<fs::path> PlainOrPacked(const fs::path& path) {
  for (const char* ending : {"", ".gz", ".xz", ".zst"})
    if (fs::path whole = path.string() + ending; IsThere(whole)) return whole;
  return std::nullopt;
}

std::vector<fs::path> Places(const KnownData& known, const fs::path& root) {
  std::vector<fs::path> places;
  for (const std::string& benchmark : FolderNames(known.benchmark))
    for (const fs::path& base : {root / "tasks" / benchmark, root / benchmark})
      places.push_back(known.folder.empty() ? base : base / known.folder);
  if (!known.folder.empty()) places.push_back(root / known.folder);
  return places;
}

common::Result<fs::path> FolderOf(const KnownData& known, const v1::TaskSpec& task, const fs::path& root) {
  if (!task.folder().empty()) {
    const fs::path folder = root / task.folder();
    if (IsThere(folder)) return folder;
    return common::NotFound("task " + task.name() + ": there is no folder '" + folder.string() + "'");
  }
  std::string looked;
  for (const fs::path& place : Places(known, root)) {
    if (IsThere(place)) return place;
    looked += (looked.empty() ? "" : ", ") + place.string();
  }
  return common::NotFound("task " + task.name() + ": its files are in none of: " + looked +
                          "; name data_root, or the task's folder");
}

common::Result<std::vector<TaskFile>> FilesIn(const KnownData& known, const fs::path& folder) {
  std::string lacks;
  for (const std::vector<std::string_view>& layout : known.layouts) {
    std::vector<TaskFile> files;
    for (std::string_view name : layout)
      if (const auto path = PlainOrPacked(folder / name))
        files.emplace_back(name, *path);
      else if (lacks.empty())
        lacks = name;
    if (files.size() == layout.size()) return files;
  }
  return common::NotFound("task " + std::string(known.name) + ": the folder '" + folder.string() +
                          "' lacks the file '" + lacks + "' (docs/tasks.md lists what it needs)");
}

}  // namespace

common::Result<std::vector<TaskFile>> FindTaskFiles(const v1::TaskSpec& task, const fs::path& root) {
  if (coordinator::IsOwnTask(task)) {
    std::vector<TaskFile> files;
    for (const std::string& file : {task.train(), task.valid()})
      files.emplace_back(fs::path(file).filename().string(), root / file);
    return files;
  }
  const KnownData* known = coordinator::FindKnown(coordinator::KnownTasks(), task.name());
  if (known == nullptr) return std::vector<TaskFile>();
  ALLO_ASSIGN_OR_RETURN(const fs::path folder, FolderOf(*known, task, root));
  return FilesIn(*known, folder);
}

}  // namespace allometry::cli
