#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/result.h"

namespace allometry::common {

// A file that appears whole or not at all: written beside its place, and moved there by Commit. Not thread-safe; errors
// name the path and the system's reason.
class AtomicFile {
 public:
  // `mode` is the new file's permission bits.
  static Result<AtomicFile> Create(const std::filesystem::path& path, unsigned mode = 0644);
  AtomicFile(AtomicFile&& other) noexcept;
  ~AtomicFile();  // without Commit nothing is left

  Status Append(std::string_view bytes);
  // Flushes to the disk, then replaces what was at the path.
  Status Commit();

 private:
  AtomicFile(std::filesystem::path path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}
  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
};

}  // namespace allometry::common
