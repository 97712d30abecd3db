#include "worker/supervisor/capped_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/files.h"

namespace allometry::worker {

common::Result<CappedLog> CappedLog::Create(const std::filesystem::path& path, int64_t cap_bytes) {
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0)
    return common::FailedPrecondition("cannot create the log '" + path.string() + "': " + common::ErrnoText());
  return CappedLog(fd, cap_bytes);
}

CappedLog::CappedLog(CappedLog&& other) noexcept
    : fd_(other.fd_),
      room_bytes_(other.room_bytes_),
      beyond_bytes_(other.beyond_bytes_),
      tail_(std::move(other.tail_)) {
  other.fd_ = -1;
}

CappedLog::~CappedLog() {
  if (fd_ >= 0) ::close(fd_);
}

void CappedLog::Append(std::string_view bytes) {
  tail_.append(bytes);
  if (tail_.size() > 2 * kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
  const auto head = static_cast<size_t>(std::min<int64_t>(room_bytes_, static_cast<int64_t>(bytes.size())));
  Write(bytes.substr(0, head));
  room_bytes_ -= static_cast<int64_t>(head);
  beyond_bytes_ += static_cast<int64_t>(bytes.size() - head);
}

void CappedLog::Finish() {
  if (beyond_bytes_ == 0) return;
  const auto kept = static_cast<size_t>(
      std::min({beyond_bytes_, static_cast<int64_t>(kTailBytes), static_cast<int64_t>(tail_.size())}));
  const int64_t missing = beyond_bytes_ - static_cast<int64_t>(kept);
  Write("\n[... " + std::to_string(missing) + " bytes left out: the log's limit is reached ...]\n");
  Write(std::string_view(tail_).substr(tail_.size() - kept));
  beyond_bytes_ = 0;
}

std::string CappedLog::LastLines(size_t max_lines, size_t max_bytes) const {
  size_t end = tail_.find_last_not_of("\r\n");
  if (end == std::string::npos) return "";
  ++end;
  size_t begin = end;
  for (size_t lines = 0; begin > 0 && end - begin < max_bytes; --begin) {
    if (tail_[begin - 1] == '\n' && ++lines == max_lines) break;
  }
  return tail_.substr(begin, end - begin);
}

void CappedLog::Write(std::string_view bytes) {
  // A full disk must not end a training run because its log cannot be written: what does not fit is left out.
  while (!bytes.empty()) {
    ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace allometry::worker
