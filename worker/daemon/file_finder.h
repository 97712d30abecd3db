#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "common/result.h"

namespace allometry::worker {

// Finds a raw file on this machine by its content: first where the submitter saw it, then by name below the data roots,
// then by size alone. A path counts only when bytes and SHA-256 agree. Hashes are remembered by (path, modification
// time, size), so that a large corpus is read once in a process. Thread-safe.
class FileFinder {
 public:
  explicit FileFinder(std::vector<std::filesystem::path> roots) : roots_(std::move(roots)) {}

  // kNotFound when no file here has this content.
  common::Result<std::filesystem::path> Find(const std::string& sha256, int64_t bytes, const std::string& name,
                                             const std::filesystem::path& hint);

 private:
  bool Matches(const std::filesystem::path& path, const std::string& sha256, int64_t bytes);

  std::vector<std::filesystem::path> roots_;
  std::mutex mutex_;
  using Key = std::tuple<std::string, int64_t, int64_t>;  // path, modification time (ns), size
  std::map<Key, std::string> hashes_;                     // guarded by mutex_
};

}  // namespace allometry::worker
