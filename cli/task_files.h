#pragma once

#include <filesystem>
#include <utility>
#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "common/result.h"

namespace allometry::cli {

// A file that a task reads, by the name that its reader knows and as it lies on the disk.
using TaskFile = std::pair<std::string, std::filesystem::path>;

// The files of a benchmark's task or of one's own (coordinator/grid/known_tasks.h), of tasks that come with no package.
// Relative paths start from `root`; without a folder of its own a benchmark's task is looked for in
// tasks/<benchmark>/<task>, <benchmark>/<task> and <task> below it. A file may have .gz, .xz or .zst behind its name.
// kNotFound says where was looked, or which file a folder lacks.
common::Result<std::vector<TaskFile>> FindTaskFiles(const v1::TaskSpec& task, const std::filesystem::path& root);

}  // namespace allometry::cli
