#include "common/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/atomic_file.h"

namespace allometry::common {
namespace {

ErrorCode CodeOfErrno() {
  switch (errno) {
    case ENOENT: return ErrorCode::kNotFound;
    case EACCES: case EPERM: case EROFS: return ErrorCode::kPermissionDenied;
    case ENOSPC: case EDQUOT: case EFBIG: case EMFILE: case ENFILE: return ErrorCode::kResourceExhausted;
    default: return ErrorCode::kFailedPrecondition;
  }
}

Error FileError(const char* act, const std::filesystem::path& path) {
  return {CodeOfErrno(), std::string("cannot ") + act + " '" + path.string() + "': " + ErrnoText()};
}

bool WriteAll(int fd, std::string_view content) {
  while (!content.empty()) {
    ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    content.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

std::string ErrnoText() { return std::strerror(errno); }

Result<std::string> ReadFile(const std::filesystem::path& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("open", path);
  std::string out;
  char buffer[1 << 16];
  for (;;) {
    ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      Error error = FileError("read", path);
      ::close(fd);
      return error;
    }
    if (n == 0) break;
    out.append(buffer, static_cast<size_t>(n));
  }
  ::close(fd);
  return out;
}

Status SyncDirectory(const std::filesystem::path& path) {
  const std::filesystem::path dir = path.empty() ? "." : path;
  int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FileError("open directory", dir);
  bool ok = ::fsync(fd) == 0;
  Status status = ok ? Ok() : Status(FileError("sync directory", dir));
  ::close(fd);
  return status;
}

Result<AtomicFile> AtomicFile::Create(const std::filesystem::path& path, unsigned mode) {
  std::string temporary = path.string() + ".tmp" + std::to_string(::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return FileError("create", temporary);
  return AtomicFile(path, std::move(temporary), fd);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::move(other.temporary_)), fd_(other.fd_) {
  other.fd_ = -1;
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

Status AtomicFile::Append(std::string_view bytes) {
  return WriteAll(fd_, bytes) ? Ok() : Status(FileError("write", temporary_));
}

Status AtomicFile::Commit() {
  if (::fsync(fd_) != 0) return FileError("write", temporary_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return FileError("rename to", path_);
  ::close(fd_);
  fd_ = -1;
  return SyncDirectory(path_.parent_path());
}

Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content, unsigned mode) {
  ALLO_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path, mode));
  ALLO_RETURN_IF_ERROR(file.Append(content));
  return file.Commit();
}

Status MakeDirectories(const std::filesystem::path& path) {
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) {
    errno = ec.value();
    return FileError("make directory", path);
  }
  return Ok();
}

Result<FileLock> FileLock::Acquire(const std::filesystem::path& path) {
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("open lock", path);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return FileLock(fd);
  bool held = errno == EWOULDBLOCK;
  Error error = held ? FailedPrecondition("'" + path.string() + "' is locked by another process")
                     : FileError("lock", path);
  ::close(fd);
  return error;
}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace allometry::common
