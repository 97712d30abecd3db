#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/files.h"
#include "common/result.h"

// The directory that holds all of a coordinator: allometry.db, blobs/, lock and endpoint.json.
namespace allometry::coordinator {

// $XDG_STATE_HOME/allometry, or ~/.local/state/allometry.
std::filesystem::path DefaultDataDir();

// How clients on this machine find a running coordinator. Stands in endpoint.json, mode 0600 because of the token.
struct Endpoint {
  std::string address;  // "127.0.0.1:41873"
  int64_t pid = 0;
  std::string token;       // empty: none needed
  std::string cluster_id;  // the database's own, never reused
  bool tls = false;        // the client needs the certificate to verify against
};

// kNotFound: no coordinator has left an endpoint there. Does not check whether it still runs.
common::Result<Endpoint> ReadEndpoint(const std::filesystem::path& data_dir);

// A data directory held by this process alone for the object's lifetime. Not thread-safe.
class DataDirectory {
 public:
  // Creates it (mode 0700) if absent. kPermissionDenied: not writable. kFailedPrecondition: another coordinator has it.
  static common::Result<DataDirectory> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path Database() const { return path_ / "allometry.db"; }
  std::filesystem::path Blobs() const { return path_ / "blobs"; }

  common::Status WriteEndpoint(const Endpoint& endpoint) const;
  void RemoveEndpoint() const;

 private:
  DataDirectory(std::filesystem::path path, common::FileLock lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::filesystem::path path_;
  common::FileLock lock_;
};

}  // namespace allometry::coordinator
