#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "common/result.h"
#include "worker/daemon/blob_cache.h"
#include "worker/daemon/coordinator_client.h"

namespace allometry::worker {

// An output ready to be uploaded: the message that names its files by hash, and where each one lies.
struct Package {
  v1::Output output;
  std::map<std::string, std::filesystem::path> path_of;  // by SHA-256
};

// Hashes all regular files below `root` (or the one file `root`), in sorted order. Paths in the message start with
// `prefix` when it is not empty.
common::Result<Package> PackFiles(const std::string& name, const std::filesystem::path& root,
                                  const std::string& prefix);

// Uploads what the coordinator does not have, going on where a broken upload ended; retried while `alive`.
common::Status UploadPackage(CoordinatorClient& client, const Package& package, const Alive& alive);

}  // namespace allometry::worker
