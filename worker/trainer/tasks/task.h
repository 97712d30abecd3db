#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace allometry::trainer {

// One example as text: what the model reads, and which of the task's labels it should answer.
struct TaskExample {
  std::string input;
  int32_t label = 0;
  // What must not be in both splits: the lemmas that the example is about.
  std::vector<std::string> lemmas;
};

struct TaskExamples {
  // In an order such that every prefix is as balanced as the whole, so that a cap is a prefix.
  std::vector<TaskExample> train, valid;
  // What was left out and why, by name.
  std::map<std::string, int64_t> counts;
};

// A downstream task with a closed set of answers. Instances are constants owned by the registry; one file each.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string_view name() const = 0;
  virtual std::span<const std::string_view> labels() const = 0;
  virtual std::string_view metric() const { return "accuracy"; }
  // Raised whenever the same files would give other examples: part of every run's identity.
  virtual int numerics_version() const = 0;
  // Names of the files that it reads; those in optional_files may be missing.
  virtual std::span<const std::string_view> files() const = 0;
  virtual std::span<const std::string_view> optional_files() const { return {}; }
  // Reads the raw files (name -> path, checked against files()). kDataLoss names the file and the line.
  virtual common::Result<TaskExamples> Read(const std::map<std::string, std::filesystem::path>& files) const = 0;
};

// All tasks, in the order of docs/data.md.
std::span<const Task* const> Tasks();
common::Result<const Task*> FindTask(std::string_view name);  // kNotFound names the nearest one

// One function a task file, called by the registry.
const Task& WordnetPosTask();
const Task& WordnetWicTask();

}  // namespace allometry::trainer
