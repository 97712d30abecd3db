#include "worker/trainer/engine/events.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>

#include "common/files.h"

namespace allometry::trainer {
namespace {

constexpr size_t kMaxLineBytes = 1 << 20;

common::Error WriteError(const std::string& what) {
  const auto code = errno == ENOSPC || errno == EDQUOT ? common::ErrorCode::kResourceExhausted
                                                       : common::ErrorCode::kFailedPrecondition;
  return {code, "cannot " + what + " the events file: " + common::ErrnoText()};
}

common::Status WriteLine(int fd, const std::string& line) {
  struct stat before {};
  if (::fstat(fd, &before) != 0) return WriteError("inspect");
  size_t done = 0;
  while (done < line.size()) {
    ssize_t n = ::write(fd, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      common::Error error = WriteError("append to");
      if (S_ISREG(before.st_mode) && ::ftruncate(fd, before.st_size) != 0) error.message += " (and cannot cut it back)";
      return error;
    }
    done += static_cast<size_t>(n);
  }
  return common::Ok();
}

// True if the file ends inside a line.
bool HasTornTail(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) return false;
  char last = '\n';
  return ::pread(fd, &last, 1, status.st_size - 1) == 1 && last != '\n';
}

}  // namespace

common::Result<EventWriter> EventWriter::Open(const std::filesystem::path& path) {
  if (path.empty()) return EventWriter(-1);
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return WriteError("open '" + path.string() + "' as");
  EventWriter writer(fd);
  if (HasTornTail(fd)) ALLO_RETURN_IF_ERROR(WriteLine(fd, "\n"));
  return writer;
}

EventWriter::~EventWriter() {
  if (fd_ >= 0) ::close(fd_);
}

common::Status EventWriter::Write(const common::Json& event) {
  if (fd_ < 0) return common::Ok();
  const std::string line = event.dump(-1, ' ', false, common::Json::error_handler_t::replace) + "\n";
  if (line.size() > kMaxLineBytes)
    return common::ResourceExhausted("an event of " + std::to_string(line.size()) + " bytes: at most 1 MiB is allowed");
  std::lock_guard lock(mutex_);
  return WriteLine(fd_, line);
}

common::Status EventWriter::Metric(int64_t step, const std::map<std::string, double>& values) {
  return Write({{"event", "metric"}, {"step", step}, {"values", NumbersToJson(values)}});
}

common::Json NumberToJson(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

common::Json NumbersToJson(const std::map<std::string, double>& values) {
  common::Json object = common::Json::object();
  for (const auto& [name, value] : values) object[name] = NumberToJson(value);
  return object;
}

}  // namespace allometry::trainer
