#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/result.h"

namespace allometry::worker {

// A log file that cannot fill a disk: the first `cap_bytes` are written as they come; of what follows only the last
// 64 KiB are kept in memory and appended by Finish() behind a line that says how much is missing. The file only grows,
// so that a reader may follow it by offset. Not thread-safe.
class CappedLog {
 public:
  static constexpr size_t kTailBytes = 64 << 10;

  static common::Result<CappedLog> Create(const std::filesystem::path& path, int64_t cap_bytes);
  CappedLog(CappedLog&& other) noexcept;
  CappedLog& operator=(CappedLog&&) = delete;
  ~CappedLog();

  void Append(std::string_view bytes);
  void Finish();
  // The last lines, at most `max_lines` and `max_bytes`, without a trailing newline.
  std::string LastLines(size_t max_lines, size_t max_bytes) const;

 private:
  CappedLog(int fd, int64_t cap_bytes) : fd_(fd), room_bytes_(cap_bytes) {}
  void Write(std::string_view bytes);

  int fd_ = -1;
  int64_t room_bytes_;
  int64_t beyond_bytes_ = 0;  // came after the cap
  std::string tail_;          // the last bytes of all, at most 2 * kTailBytes
};

}  // namespace allometry::worker
