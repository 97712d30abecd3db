#include "coordinator/server/data_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "common/json.h"

namespace allometry::coordinator {
namespace {

namespace fs = std::filesystem;

common::Error Held(const fs::path& path) {
  std::string by;
  if (auto endpoint = ReadEndpoint(path)) {
    by = " (process " + std::to_string(endpoint->pid) + " at " + endpoint->address + ")";
  }
  return common::FailedPrecondition("data directory '" + path.string() + "' is in use by another coordinator" + by +
                                    ": use that one, stop it, or choose another directory with --data");
}

}  // namespace

fs::path DefaultDataDir() {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state) return fs::path(state) / "allometry";
  const char* home = std::getenv("HOME");
  return fs::path(home && *home ? home : "/") / ".local/state/allometry";
}

common::Result<Endpoint> ReadEndpoint(const fs::path& data_dir) {
  const fs::path path = data_dir / "endpoint.json";
  ALLO_ASSIGN_OR_RETURN(const common::Json json, common::ReadJsonFile(path));
  try {
    return Endpoint{json.at("address"), json.at("pid"), json.value("token", ""), json.value("cluster_id", ""),
                    json.value("tls", false)};
  } catch (const common::Json::exception& e) {
    return common::DataLoss("'" + path.string() + "' is not an endpoint file: " + e.what());
  }
}

common::Result<DataDirectory> DataDirectory::Open(const fs::path& path) {
  const bool fresh = !fs::exists(path);
  if (auto made = common::MakeDirectories(path); !made) {
    return common::Error{made.error().code, made.error().message + "; choose a data directory with --data"};
  }
  if (fresh) ::chmod(path.c_str(), 0700);
  if (::access(path.c_str(), W_OK | X_OK) != 0) {
    return common::PermissionDenied("data directory '" + path.string() + "' is not writable: " + common::ErrnoText() +
                                    "; choose another one with --data");
  }
  auto lock = common::FileLock::Acquire(path / "lock");
  if (!lock && lock.error().code == common::ErrorCode::kFailedPrecondition) return Held(path);
  if (!lock) return lock.error();
  return DataDirectory(fs::absolute(path), std::move(lock).value());
}

common::Status DataDirectory::WriteEndpoint(const Endpoint& endpoint) const {
  const common::Json json = {{"address", endpoint.address},
                             {"pid", endpoint.pid},
                             {"token", endpoint.token},
                             {"cluster_id", endpoint.cluster_id},
                             {"tls", endpoint.tls}};
  return common::WriteFileAtomically(path_ / "endpoint.json", json.dump(2) + "\n", 0600);
}

void DataDirectory::RemoveEndpoint() const {
  std::error_code ignored;
  fs::remove(path_ / "endpoint.json", ignored);
}

}  // namespace allometry::coordinator
