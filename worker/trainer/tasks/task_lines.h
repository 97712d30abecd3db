#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "common/result.h"
#include "worker/trainer/data/decompress.h"
#include "worker/trainer/tasks/task.h"

// What the readers of task files share: finding a file, reading it line by line, saying where a mistake is.
namespace allometry::trainer {

// The task's files in a folder as its benchmark ships it, each under its own name or with .gz, .xz or .zst behind it.
// kNotFound names the folder and the file that it lacks.
common::Result<TaskFiles> FindTaskFiles(const Task& task, const std::filesystem::path& folder);

// kNotFound: the task was not given this file.
common::Result<std::filesystem::path> PathOfTaskFile(const TaskFiles& files, std::string_view task,
                                                     std::string_view file);

// "glue_cola 'train.tsv' line 17", for messages.
std::string PlaceInFile(std::string_view task, std::string_view file, int64_t line);

// Whether the bytes are well-formed UTF-8 (RFC 3629).
bool IsUtf8(std::string_view bytes);

// Adds n to the count of this name, unless n is 0: what did not happen is not listed.
void AddCount(std::map<std::string, int64_t>* counts, const std::string& name, int64_t n);

// Passes over bad rows and counts them, where that is wanted.
class BadRowCounter {
 public:
  explicit BadRowCounter(BadRows bad_rows) : skips_(bad_rows == BadRows::kSkip) {}
  // The error itself, unless it is a bad row's (kDataLoss) that is passed over.
  common::Status Take(const common::Error& error);
  int64_t count() const { return count_; }

 private:
  bool skips_;
  int64_t count_ = 0;
};

// The lines of one task file, decompressed if need be. A byte-order mark and blank lines are passed over. Not
// thread-safe.
class TaskLines {
 public:
  static common::Result<TaskLines> Open(const TaskFiles& files, std::string_view task, std::string_view file,
                                        BadRows bad_rows);

  // The next line that is not blank; false at the end. kDataLoss: it is not UTF-8 (a bad row), or the compression is
  // damaged (never passed over).
  common::Result<bool> Next(std::string* line);

  int64_t number() const { return number_; }  // of the line read last, from 1
  std::string Place() const { return PlaceInFile(task_, file_, number_); }
  // kDataLoss: "glue_cola 'train.tsv' line 17: what".
  common::Error Wrong(const std::string& what) const { return common::DataLoss(Place() + ": " + what); }
  // The row is bad: OK if it is passed over.
  common::Status Bad(const std::string& what) { return bad_rows_.Take(Wrong(what)); }
  common::Status Bad(const common::Error& error) { return bad_rows_.Take(error); }
  // Adds what was passed over, each name beginning with the split's.
  void AddCounts(const std::string& split, std::map<std::string, int64_t>* counts) const;

 private:
  TaskLines(TextReader reader, std::string_view task, std::string_view file, BadRows bad_rows)
      : reader_(std::move(reader)), task_(task), file_(file), bad_rows_(bad_rows) {}

  TextReader reader_;
  std::string task_, file_;
  BadRowCounter bad_rows_;
  int64_t number_ = 0, blank_lines_ = 0;
};

}  // namespace allometry::trainer
