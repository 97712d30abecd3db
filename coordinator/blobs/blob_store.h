#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "common/result.h"
#include "common/sha256.h"

// Artefacts by their SHA-256: what stands in the store is complete, verified and on the disk.
//
//   <root>/ab/abcdef…          a complete blob, read-only
//   <root>/partial/abcdef…     a broken upload that can be gone on with
//   <root>/partial/abcdef….7   a second upload of the same blob at the same time: dropped when it breaks
namespace allometry::coordinator {

// 64 lower-case hexadecimal digits.
bool IsSha256(std::string_view text);

class BlobStore {
 public:
  struct Options {
    // Replaces write(2), so that tests can fill the disk at any write.
    std::function<ssize_t(int fd, const void* data, size_t size)> write;
  };

  struct BlobStat {
    bool complete = false;
    int64_t bytes = 0;  // complete size, or how much of a broken upload is kept
  };

  struct Collected {
    int64_t blobs = 0;
    int64_t bytes = 0;
  };

  class Upload;
  class Reader;

  static common::Result<std::unique_ptr<BlobStore>> Open(const std::filesystem::path& root, Options options = {});

  // All methods may be called from any thread; they touch the disk, so not from the strand (Has is cheap enough).

  bool Has(const std::string& sha256) const;

  // Asking renews a blob's age, so that whoever was just told "it is here" has the whole grace period to name it.
  common::Result<BlobStat> Stat(const std::string& sha256) const;

  // Goes on at `offset`, which must be the `bytes` of Stat; total_bytes is the whole blob's size.
  // kInvalidArgument: not a hash, or sizes that cannot be. kAborted: the kept part is not of that length (Stat again).
  common::Result<std::unique_ptr<Upload>> BeginUpload(const std::string& sha256, int64_t offset, int64_t total_bytes);

  // kNotFound, or kOutOfRange beyond the end.
  common::Result<std::unique_ptr<Reader>> OpenReader(const std::string& sha256, int64_t offset) const;

  // Removes the blobs and broken uploads that `is_named` does not know and nobody has written or asked for since
  // `older_than_unix_ms`.
  common::Result<Collected> Collect(const std::function<bool(const std::string&)>& is_named,
                                    int64_t older_than_unix_ms);

  // Bytes of all complete blobs, by walking the directory.
  int64_t TotalBytes() const;

 private:
  BlobStore(std::filesystem::path root, Options options);
  std::filesystem::path PathOf(const std::string& sha256) const;
  std::filesystem::path PartialPathOf(const std::string& sha256) const;
  common::Status Place(const std::filesystem::path& partial, const std::string& sha256);
  bool Remove(const std::filesystem::path& path, int64_t older_than_unix_ms, Collected* collected);

  std::filesystem::path root_;
  Options options_;
  mutable std::mutex mutex_;         // guards what follows; never held over a read or write of content
  std::set<std::string> uploading_;  // whose partial/<sha256> is open
  int64_t next_private_ = 1;
};

// One upload; used by one thread at a time. Destroyed before Finish, it leaves what came so far for a later
// BeginUpload.
class BlobStore::Upload {
 public:
  ~Upload();
  // kResourceExhausted on a full disk (what was written stays), kInvalidArgument when more comes than announced.
  common::Status Append(std::string_view data);
  // Verifies length and hash, syncs file and directory; afterwards the blob is there. kDataLoss: the bytes have another
  // hash, and nothing is kept.
  common::Status Finish();

 private:
  friend class BlobStore;
  Upload(BlobStore* store, std::string sha256, int64_t total_bytes);
  common::Status OpenPartial(std::filesystem::path path, int64_t offset);
  common::Status HashExisting(int64_t bytes);
  void Discard();

  BlobStore* store_;
  std::string sha256_;
  int64_t total_bytes_;
  int64_t bytes_ = 0;
  bool complete_already_ = false;  // swallow the bytes: they are here
  bool private_ = false;           // not the resumable partial file
  bool owns_name_ = false;         // in uploading_
  int fd_ = -1;
  std::filesystem::path path_;
  common::Sha256 hash_;
};

// Reads one blob front to back; used by one thread at a time.
class BlobStore::Reader {
 public:
  ~Reader();
  // Up to max_bytes; empty at the end.
  common::Result<std::string> Read(size_t max_bytes);
  int64_t offset() const { return offset_; }
  int64_t total_bytes() const { return total_bytes_; }

 private:
  friend class BlobStore;
  Reader(int fd, int64_t offset, int64_t total_bytes) : fd_(fd), offset_(offset), total_bytes_(total_bytes) {}
  int fd_;
  int64_t offset_;
  int64_t total_bytes_;
};

}  // namespace allometry::coordinator
