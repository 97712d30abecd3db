#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/result.h"

namespace allometry::common {

// All functions are thread-safe; errors name the path and the system's reason.

Result<std::string> ReadFile(const std::filesystem::path& path);

// Writes temporary + fsync + rename + fsync of the directory: after a crash the old or the new content is there, never
// a mixture. `mode` is the new file's permission bits.
Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content, unsigned mode = 0644);

// Flushes a directory's entries to the disk (after a rename or a link into it).
Status SyncDirectory(const std::filesystem::path& path);

Status MakeDirectories(const std::filesystem::path& path);

// A non-blocking exclusive flock held for the object's lifetime.
class FileLock {
 public:
  // kFailedPrecondition if another process holds it; creates the file if absent.
  static Result<FileLock> Acquire(const std::filesystem::path& path);
  FileLock(FileLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

// The system's text for the current errno.
std::string ErrnoText();

}  // namespace allometry::common
