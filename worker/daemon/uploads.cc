#include "worker/daemon/uploads.h"

#include <algorithm>
#include <vector>

#include "common/sha256.h"
#include "worker/daemon/retry.h"

namespace allometry::worker {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxFiles = 10'000;
constexpr int kUploadTries = 4;  // against errors that retrying should not mend, such as a broken partial upload

common::Status AddFile(const fs::path& path, const std::string& name, Package* package) {
  if (package->output.files_size() >= kMaxFiles)
    return common::InvalidArgument("an output has more than " + std::to_string(kMaxFiles) + " files");
  ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(path));
  auto* file = package->output.add_files();
  file->set_path(name);
  file->set_sha256(sha256);
  std::error_code ec;
  file->set_bytes(static_cast<int64_t>(fs::file_size(path, ec)));
  package->path_of[sha256] = path;
  return common::Ok();
}

common::Status UploadOne(CoordinatorClient& client, const fs::path& path, const std::string& sha256,
                         const Alive& alive) {
  std::error_code ec;
  const auto total_bytes = static_cast<int64_t>(fs::file_size(path, ec));
  if (ec) return common::NotFound("cannot upload '" + path.string() + "': " + ec.message());
  v1::StatBlobsRequest request;
  request.add_sha256(sha256);
  common::Status status;
  for (int tries = 0; tries < kUploadTries && alive(); ++tries) {
    status = RetryWhile(alive, [&]() -> common::Status {
      ALLO_ASSIGN_OR_RETURN(auto stat, client.StatBlobs(request));
      const bool known = stat.blobs_size() == 1;
      if (known && stat.blobs(0).complete()) return common::Ok();
      const int64_t kept_bytes = known ? stat.blobs(0).bytes() : 0;
      return client.UploadBlob(path, sha256, kept_bytes <= total_bytes ? kept_bytes : 0, total_bytes, alive);
    });
    if (status.ok()) return status;
  }
  return alive() ? status : common::Unavailable("the upload was given up");
}

}  // namespace

common::Result<Package> PackFiles(const std::string& name, const fs::path& root, const std::string& prefix) {
  Package package;
  package.output.set_name(name);
  std::error_code ec;
  if (fs::is_regular_file(root, ec)) {
    ALLO_RETURN_IF_ERROR(AddFile(root, prefix.empty() ? root.filename().string() : prefix, &package));
    return package;
  }
  std::vector<std::string> names;
  for (fs::recursive_directory_iterator it(root, ec), end; !ec && it != end; it.increment(ec)) {
    if (std::error_code file_ec; it->is_regular_file(file_ec))
      names.push_back(it->path().lexically_relative(root).generic_string());
  }
  if (ec || names.empty())
    return common::NotFound("'" + root.string() + "' " + (ec ? "cannot be read: " + ec.message() : "holds no files"));
  std::sort(names.begin(), names.end());
  for (const auto& file : names)
    ALLO_RETURN_IF_ERROR(AddFile(root / file, prefix.empty() ? file : prefix + "/" + file, &package));
  return package;
}

common::Status UploadPackage(CoordinatorClient& client, const Package& package, const Alive& alive) {
  v1::StatBlobsRequest request;
  for (const auto& [sha256, path] : package.path_of) request.add_sha256(sha256);
  ALLO_ASSIGN_OR_RETURN(auto stat, RetryWhile(alive, [&] { return client.StatBlobs(request); }));
  std::map<std::string, fs::path> missing = package.path_of;
  for (const auto& blob : stat.blobs()) {
    if (blob.complete()) missing.erase(blob.sha256());
  }
  for (const auto& [sha256, path] : missing) ALLO_RETURN_IF_ERROR(UploadOne(client, path, sha256, alive));
  return common::Ok();
}

}  // namespace allometry::worker
