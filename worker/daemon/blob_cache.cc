#include "worker/daemon/blob_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "common/fault_point.h"
#include "common/files.h"
#include "common/sha256.h"
#include "worker/daemon/retry.h"

namespace allometry::worker {
namespace fs = std::filesystem;

bool IsSha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool IsSafeRelativePath(const std::string& path) {
  if (path.empty() || path.front() == '/' || path.back() == '/' || path.find('\0') != std::string::npos) return false;
  for (const auto& part : fs::path(path)) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

bool BlobCache::Has(const std::string& sha256, int64_t bytes) const {
  std::error_code ec;
  return static_cast<int64_t>(fs::file_size(folder_ / sha256, ec)) == bytes && !ec;
}

common::Result<fs::path> BlobCache::Fetch(const std::string& sha256, int64_t bytes, const Alive& alive) {
  if (!IsSha256(sha256)) return common::InvalidArgument("'" + sha256 + "' is no SHA-256");
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return !busy_.count(sha256); });
  if (!Has(sha256, bytes)) {
    busy_.insert(sha256);
    lock.unlock();
    auto status = RetryWhile(alive, [&] { return Download(sha256, bytes, alive); });
    lock.lock();
    busy_.erase(sha256);
    idle_.notify_all();
    if (!status.ok()) return status.error();
    common::FaultPoint("worker.input_fetched");
  }
  ::utimensat(AT_FDCWD, (folder_ / sha256).c_str(), nullptr, 0);  // asked for now, see RemoveUnused
  return folder_ / sha256;
}

common::Status BlobCache::Download(const std::string& sha256, int64_t bytes, const Alive& alive) {
  const fs::path part = folder_ / (sha256 + ".part");
  int fd = ::open(part.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return common::ResourceExhausted("cannot create '" + part.string() + "': " + common::ErrnoText());
  int64_t at = std::max<int64_t>(0, ::lseek(fd, 0, SEEK_END));
  if (at > bytes) at = ::ftruncate(fd, 0);
  auto write = [&](std::string_view data) -> common::Status {
    while (!data.empty()) {
      const ssize_t n = ::pwrite(fd, data.data(), data.size(), at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return common::ResourceExhausted("cannot write '" + part.string() + "': " + common::ErrnoText());
      at += n;
      data.remove_prefix(static_cast<size_t>(n));
    }
    return common::Ok();
  };
  common::Status status = at < bytes ? client_.DownloadBlob(sha256, at, bytes, write, alive) : common::Ok();
  if (status.ok() && ::fsync(fd) != 0) status = common::ResourceExhausted("cannot sync '" + part.string() + "'");
  ::close(fd);
  if (!status.ok()) return status;
  ALLO_ASSIGN_OR_RETURN(const std::string actual, common::Sha256HexOfFile(part));
  if (actual != sha256) {
    ::unlink(part.c_str());
    return common::DataLoss("blob " + sha256 + " came with " + std::to_string(at) + " bytes and hash " + actual);
  }
  if (::rename(part.c_str(), (folder_ / sha256).c_str()) != 0)
    return common::ResourceExhausted("cannot rename '" + part.string() + "': " + common::ErrnoText());
  ::chmod((folder_ / sha256).c_str(),
          0444);  // not before: after a death the next process must open the part for writing
  return common::SyncDirectory(folder_);
}

common::Status BlobCache::Adopt(const fs::path& file, const std::string& sha256) {
  const fs::path target = folder_ / sha256;
  ::chmod(file.c_str(), 0444);  // one inode: whoever writes to the file would change the blob
  if (::link(file.c_str(), target.c_str()) == 0 || errno == EEXIST) return common::Ok();
  return common::FailedPrecondition("cannot link '" + file.string() + "' into the blob cache: " + common::ErrnoText());
}

void BlobCache::RemoveUnused(int64_t older_than_s) {
  std::lock_guard lock(mutex_);
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder_, ec)) {
    struct stat info;
    if (::stat(entry.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink > 1) continue;
    if (busy_.count(entry.path().stem().string())) continue;
    if (::time(nullptr) - info.st_mtime > older_than_s) ::unlink(entry.path().c_str());
  }
}

common::Status PlaceFile(const fs::path& blob, const fs::path& target) {
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(target.parent_path()));
  std::error_code ec;
  fs::remove(target, ec);
  if (::link(blob.c_str(), target.c_str()) == 0) return common::Ok();
  if (::symlink(blob.c_str(), target.c_str()) == 0) return common::Ok();
  if (fs::copy_file(blob, target, fs::copy_options::overwrite_existing, ec)) return common::Ok();
  return common::FailedPrecondition("cannot put '" + target.string() + "' in place: " + ec.message());
}

}  // namespace allometry::worker
