#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "common/result.h"
#include "worker/daemon/coordinator_client.h"

namespace allometry::worker {

using Alive = std::function<bool()>;

// Whether the text is 64 lower-case hexadecimal digits: hashes come from the network and become file names.
bool IsSha256(const std::string& text);
// A place below a folder: relative, without "..", "." or empty parts.
bool IsSafeRelativePath(const std::string& path);

// Verified files by their SHA-256 in one folder, read-only. What is in it under its name is complete. Thread-safe; the
// folder belongs to one process.
class BlobCache {
 public:
  BlobCache(std::filesystem::path folder, CoordinatorClient& client) : folder_(std::move(folder)), client_(client) {}

  // The blob's path, downloaded if it is not there: resumed from what an earlier try left, verified, synced, renamed.
  // Connection errors are retried while `alive`; kNotFound and kDataLoss are final.
  common::Result<std::filesystem::path> Fetch(const std::string& sha256, int64_t bytes, const Alive& alive);
  // Takes a file whose hash is known to be this one, by a hard link where possible; an error leaves no trace.
  common::Status Adopt(const std::filesystem::path& file, const std::string& sha256);
  // Removes blobs that nothing links to and nothing has asked for since so long.
  void RemoveUnused(int64_t older_than_s);

 private:
  common::Status Download(const std::string& sha256, int64_t bytes, const Alive& alive);
  bool Has(const std::string& sha256, int64_t bytes) const;

  std::filesystem::path folder_;
  CoordinatorClient& client_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::set<std::string> busy_;  // guarded by mutex_; downloads on their way
};

// Puts a blob at `target` (replacing what is there): hard link, else symbolic link, else copy.
common::Status PlaceFile(const std::filesystem::path& blob, const std::filesystem::path& target);

}  // namespace allometry::worker
