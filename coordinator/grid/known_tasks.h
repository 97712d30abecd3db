#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "allometry/v1/sweep.pb.h"

namespace allometry::coordinator {

// Raw data that the program knows how to read: a corpus or a downstream task of the built-in trainer.
struct KnownData {
  std::string_view name;
  // Of which the task is a part: "wordnet", "glue", "superglue", "squad"; empty for a corpus.
  std::string_view benchmark;
  // The Debian package that has the files, and where it puts them. Without a package the user brings the files, in a
  // folder that the benchmark calls so.
  std::string_view package;
  std::string_view folder;
  // Sets of files, by the names that the trainer knows; the first that is there as a whole is taken.
  std::vector<std::vector<std::string_view>> layouts;
  bool in_average = true;  // false: not among the tasks that the benchmark's name stands for
};

std::span<const KnownData> KnownCorpora();
std::span<const KnownData> KnownTasks();
const KnownData* FindKnown(std::span<const KnownData> all, std::string_view name);  // null when there is none
std::vector<std::string> NamesOf(std::span<const KnownData> all);

// Whether a benchmark's name stands for its tasks: "glue", "superglue".
bool IsTaskGroup(std::string_view name);
// Whether the task is declared in the sweep, by files of JSON lines.
bool IsOwnTask(const v1::TaskSpec& task);
// The sweep's tasks, each by its own name: in place of a group its tasks, with the group's settings.
std::vector<v1::TaskSpec> TasksOf(const v1::SweepSpec& spec);

}  // namespace allometry::coordinator
