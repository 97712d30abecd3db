#include "coordinator/blobs/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "common/fault_point.h"
#include "common/files.h"

namespace allometry::coordinator {
namespace {

namespace fs = std::filesystem;
using common::Error;
using common::ErrorCode;
using common::Result;
using common::Status;

constexpr size_t kReadBytes = 1 << 20;

Error SystemError(const std::string& act, const fs::path& path) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  const bool denied = error == EACCES || error == EPERM || error == EROFS;
  const ErrorCode code = full              ? ErrorCode::kResourceExhausted
                         : denied          ? ErrorCode::kPermissionDenied
                         : error == ENOENT ? ErrorCode::kNotFound
                                           : ErrorCode::kFailedPrecondition;
  return {code, "cannot " + act + " '" + path.string() + "': " + common::ErrnoText() +
                    (full ? "; free disk space and send it again, what arrived is kept" : "")};
}

Error NotAHash(const std::string& text) {
  return common::InvalidArgument("'" + text.substr(0, 80) + "' is not a SHA-256 (64 lower-case hexadecimal digits)");
}

int64_t ModifiedUnixMs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1000 + info.st_mtim.tv_nsec / 1'000'000;
}

}  // namespace

bool IsSha256(std::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

BlobStore::BlobStore(fs::path root, Options options) : root_(std::move(root)), options_(std::move(options)) {
  if (!options_.write) options_.write = [](int fd, const void* data, size_t size) { return ::write(fd, data, size); };
}

Result<std::unique_ptr<BlobStore>> BlobStore::Open(const fs::path& root, Options options) {
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(root / "partial"));
  ALLO_RETURN_IF_ERROR(common::SyncDirectory(root));
  return std::unique_ptr<BlobStore>(new BlobStore(root, std::move(options)));
}

fs::path BlobStore::PathOf(const std::string& sha256) const { return root_ / sha256.substr(0, 2) / sha256; }
fs::path BlobStore::PartialPathOf(const std::string& sha256) const { return root_ / "partial" / sha256; }

bool BlobStore::Has(const std::string& sha256) const {
  struct stat info;
  return IsSha256(sha256) && ::stat(PathOf(sha256).c_str(), &info) == 0;
}

Result<BlobStore::BlobStat> BlobStore::Stat(const std::string& sha256) const {
  if (!IsSha256(sha256)) return NotAHash(sha256);
  struct stat info;
  const fs::path path = PathOf(sha256);
  if (::stat(path.c_str(), &info) == 0) {
    ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
    return BlobStat{true, info.st_size};
  }
  std::lock_guard lock(mutex_);
  // A part that somebody is writing cannot be gone on with by anybody else.
  if (!uploading_.count(sha256) && ::stat(PartialPathOf(sha256).c_str(), &info) == 0)
    return BlobStat{false, info.st_size};
  return BlobStat{false, 0};
}

Result<std::unique_ptr<BlobStore::Upload>> BlobStore::BeginUpload(const std::string& sha256, int64_t offset,
                                                                  int64_t total_bytes) {
  if (!IsSha256(sha256)) return NotAHash(sha256);
  if (total_bytes < 0 || offset < 0 || offset > total_bytes) {
    return common::InvalidArgument("blob " + sha256 + ": offset " + std::to_string(offset) + " is not within its " +
                                   std::to_string(total_bytes) + " bytes");
  }
  std::unique_ptr<Upload> upload(new Upload(this, sha256, total_bytes));
  if (Has(sha256)) {
    upload->complete_already_ = true;
    upload->bytes_ = offset;
    return upload;
  }
  fs::path path = PartialPathOf(sha256);
  {
    std::lock_guard lock(mutex_);
    upload->owns_name_ = uploading_.insert(sha256).second;
    if (!upload->owns_name_) path += "." + std::to_string(next_private_++);
  }
  upload->private_ = !upload->owns_name_;
  ALLO_RETURN_IF_ERROR(upload->OpenPartial(path, offset));
  return upload;
}

Result<std::unique_ptr<BlobStore::Reader>> BlobStore::OpenReader(const std::string& sha256, int64_t offset) const {
  if (!IsSha256(sha256)) return NotAHash(sha256);
  const fs::path path = PathOf(sha256);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return common::NotFound("blob " + sha256 + " is not in the store");
  if (fd < 0) return SystemError("open", path);
  struct stat info;
  std::unique_ptr<Reader> reader(new Reader(fd, offset, 0));
  if (::fstat(fd, &info) != 0) return SystemError("stat", path);
  reader->total_bytes_ = info.st_size;
  if (offset < 0 || offset > info.st_size || ::lseek(fd, offset, SEEK_SET) != offset) {
    return common::OutOfRange("blob " + sha256 + " has " + std::to_string(info.st_size) + " bytes, offset " +
                              std::to_string(offset) + " was asked for");
  }
  return reader;
}

Status BlobStore::Place(const fs::path& partial, const std::string& sha256) {
  const fs::path path = PathOf(sha256);
  const bool new_folder = !fs::exists(path.parent_path());
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(path.parent_path()));
  if (new_folder) ALLO_RETURN_IF_ERROR(common::SyncDirectory(root_));
  if (::rename(partial.c_str(), path.c_str()) != 0) return SystemError("move to", path);
  return common::SyncDirectory(path.parent_path());
}

bool BlobStore::Remove(const fs::path& path, int64_t older_than_unix_ms, Collected* collected) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0 || ModifiedUnixMs(info) >= older_than_unix_ms) return false;
  if (::unlink(path.c_str()) != 0) return false;
  ++collected->blobs;
  collected->bytes += info.st_size;
  return true;
}

Result<BlobStore::Collected> BlobStore::Collect(const std::function<bool(const std::string&)>& is_named,
                                                int64_t older_than_unix_ms) {
  Collected collected;
  std::error_code error;
  for (const auto& folder : fs::directory_iterator(root_, error)) {
    if (!folder.is_directory()) continue;
    const bool partial = folder.path().filename() == "partial";
    std::error_code inner;
    for (const auto& entry : fs::directory_iterator(folder.path(), inner)) {
      const std::string name = entry.path().filename().string();
      const std::string sha256 = name.substr(0, 64);
      {
        std::lock_guard lock(mutex_);
        if (!IsSha256(sha256) || uploading_.count(sha256)) continue;
      }
      if (partial || !is_named(sha256)) Remove(entry.path(), older_than_unix_ms, &collected);
    }
    if (inner) return common::FailedPrecondition("cannot list '" + folder.path().string() + "': " + inner.message());
  }
  if (error) return common::FailedPrecondition("cannot list '" + root_.string() + "': " + error.message());
  return collected;
}

int64_t BlobStore::TotalBytes() const {
  int64_t total = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(root_, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->path().parent_path().filename() != "partial" && it->is_regular_file(ignored)) {
      const auto size = it->file_size(ignored);
      if (!ignored) total += static_cast<int64_t>(size);
    }
  }
  return total;
}

BlobStore::Upload::Upload(BlobStore* store, std::string sha256, int64_t total_bytes)
    : store_(store), sha256_(std::move(sha256)), total_bytes_(total_bytes) {}

BlobStore::Upload::~Upload() {
  if (fd_ >= 0) ::close(fd_);
  if (private_ && !path_.empty()) ::unlink(path_.c_str());
  if (owns_name_) {
    std::lock_guard lock(store_->mutex_);
    store_->uploading_.erase(sha256_);
  }
}

Status BlobStore::Upload::OpenPartial(fs::path path, int64_t offset) {
  path_ = std::move(path);
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd_ < 0) return SystemError("create", path_);
  // Starting over is always allowed; going on only exactly where the kept part ends.
  if (offset == 0 && ::ftruncate(fd_, 0) != 0) return SystemError("truncate", path_);
  const int64_t kept = ::lseek(fd_, 0, SEEK_END);
  if (kept != offset) {
    return common::Aborted("blob " + sha256_ + ": the upload wants to go on at byte " + std::to_string(offset) + ", " +
                           std::to_string(kept) + " bytes are kept; ask StatBlobs again");
  }
  return HashExisting(offset);
}

Status BlobStore::Upload::HashExisting(int64_t bytes) {
  std::string buffer(std::min<size_t>(kReadBytes, static_cast<size_t>(bytes)), '\0');
  while (bytes_ < bytes) {
    const ssize_t n = ::pread(fd_, buffer.data(), buffer.size(), bytes_);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return SystemError("read", path_);
    hash_.Update(std::string_view(buffer.data(), static_cast<size_t>(n)));
    bytes_ += n;
  }
  return common::Ok();
}

Status BlobStore::Upload::Append(std::string_view data) {
  if (bytes_ + static_cast<int64_t>(data.size()) > total_bytes_) {
    Discard();
    return common::InvalidArgument("blob " + sha256_ + ": more bytes came than the " + std::to_string(total_bytes_) +
                                   " that were announced");
  }
  if (complete_already_) {
    bytes_ += static_cast<int64_t>(data.size());
    return common::Ok();
  }
  while (!data.empty()) {
    const ssize_t n = store_->options_.write(fd_, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("write", path_);
    hash_.Update(data.substr(0, static_cast<size_t>(n)));
    bytes_ += n;
    data.remove_prefix(static_cast<size_t>(n));
  }
  return common::Ok();
}

void BlobStore::Upload::Discard() {
  if (fd_ >= 0) ::unlink(path_.c_str());
}

Status BlobStore::Upload::Finish() {
  if (complete_already_) return common::Ok();
  if (bytes_ != total_bytes_) {
    return common::FailedPrecondition("blob " + sha256_ + ": " + std::to_string(bytes_) + " of " +
                                      std::to_string(total_bytes_) + " bytes came; go on from there");
  }
  const std::string actual = hash_.FinishHex();
  if (actual != sha256_) {
    Discard();
    return common::DataLoss("blob " + sha256_ + ": the bytes that came have the hash " + actual + "; send it again");
  }
  if (::fsync(fd_) != 0) return SystemError("sync", path_);
  common::FaultPoint("coordinator.blob_synced");
  ALLO_RETURN_IF_ERROR(store_->Place(path_, sha256_));
  ::fchmod(fd_, 0400);  // not before: after a death the next process must open the part for writing
  common::FaultPoint("coordinator.blob_placed");
  path_.clear();
  return common::Ok();
}

BlobStore::Reader::~Reader() { ::close(fd_); }

Result<std::string> BlobStore::Reader::Read(size_t max_bytes) {
  std::string out(std::min<size_t>(max_bytes, static_cast<size_t>(total_bytes_ - offset_)), '\0');
  size_t filled = 0;
  while (filled < out.size()) {
    const ssize_t n = ::read(fd_, out.data() + filled, out.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return common::DataLoss("cannot read a blob: " + common::ErrnoText());
    if (n == 0) return common::DataLoss("a blob became shorter while it was read");
    filled += static_cast<size_t>(n);
  }
  offset_ += static_cast<int64_t>(filled);
  return out;
}

}  // namespace allometry::coordinator
