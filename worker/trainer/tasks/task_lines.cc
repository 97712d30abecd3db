#include "worker/trainer/tasks/task_lines.h"

#include <algorithm>

#include "worker/trainer/data/corpus.h"

namespace allometry::trainer {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string NamesOfFiles(const Task& task) {
  std::string names;
  for (std::string_view name : task.files()) names += " " + std::string(name);
  for (std::string_view name : task.optional_files()) names += " " + std::string(name);
  return names;
}

// The file under this name or a compressed form of it; empty if there is none.
fs::path InFolder(const fs::path& folder, std::string_view name) {
  for (const char* ending : {"", ".gz", ".xz", ".zst"}) {
    const fs::path path = folder / (std::string(name) + ending);
    std::error_code ignored;
    if (fs::exists(path, ignored)) return path;
  }
  return {};
}

}  // namespace

common::Result<TaskFiles> FindTaskFiles(const Task& task, const fs::path& folder) {
  TaskFiles files;
  for (std::string_view name : task.files()) {
    files[std::string(name)] = InFolder(folder, name);
    if (files[std::string(name)].empty())
      return common::NotFound("the folder '" + folder.string() + "' lacks '" + std::string(name) + "'; task " +
                              std::string(task.name()) + " reads:" + NamesOfFiles(task));
  }
  for (std::string_view name : task.optional_files())
    if (const fs::path path = InFolder(folder, name); !path.empty()) files[std::string(name)] = path;
  if (files.empty())
    return common::NotFound("the folder '" + folder.string() + "' has none of the files of task " +
                            std::string(task.name()) + ":" + NamesOfFiles(task));
  return files;
}

common::Result<fs::path> PathOfTaskFile(const TaskFiles& files, std::string_view task, std::string_view file) {
  const auto found = files.find(std::string(file));
  if (found != files.end()) return found->second;
  return common::NotFound("task " + std::string(task) + " was not given its file '" + std::string(file) + "'");
}

std::string PlaceInFile(std::string_view task, std::string_view file, int64_t line) {
  return std::string(task) + " '" + std::string(file) + "' line " + std::to_string(line);
}

bool IsUtf8(std::string_view bytes) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::ranges::all_of(bytes, is_ascii)) return true;
  bool replaced = false;
  ValidUtf8(bytes, &replaced);
  return !replaced;
}

void AddCount(std::map<std::string, int64_t>* counts, const std::string& name, int64_t n) {
  if (n != 0) (*counts)[name] += n;
}

common::Status BadRowCounter::Take(const common::Error& error) {
  if (!skips_ || error.code != common::ErrorCode::kDataLoss) return error;
  ++count_;
  return common::Ok();
}

common::Result<TaskLines> TaskLines::Open(const TaskFiles& files, std::string_view task, std::string_view file,
                                          BadRows bad_rows) {
  ALLO_ASSIGN_OR_RETURN(const fs::path path, PathOfTaskFile(files, task, file));
  ALLO_ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(path));
  return TaskLines(std::move(reader), task, file, bad_rows);
}

common::Result<bool> TaskLines::Next(std::string* line) {
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, reader_.NextLine(line));
    if (!more) return false;
    if (++number_ == 1 && line->starts_with(kByteOrderMark)) line->erase(0, kByteOrderMark.size());
    if (line->find_first_not_of(" \t\r") == line->npos) {
      ++blank_lines_;
      continue;
    }
    if (IsUtf8(*line)) return true;
    ALLO_RETURN_IF_ERROR(Bad("not UTF-8; convert the file, or fetch it again"));
  }
}

void TaskLines::AddCounts(const std::string& split, std::map<std::string, int64_t>* counts) const {
  AddCount(counts, split + "_blank_lines", blank_lines_);
  AddCount(counts, split + "_bad_rows", bad_rows_.count());
}

}  // namespace allometry::trainer
