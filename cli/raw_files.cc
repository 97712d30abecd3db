#include "cli/raw_files.h"

#include <chrono>
#include <thread>

#include "worker/daemon/coordinator_client.h"

namespace allometry::cli {
namespace {

constexpr int kTries = 3;

common::Status TryUpload(worker::CoordinatorClient& coordinator, const v1::ManifestFile& file) {
  v1::StatBlobsRequest request;
  request.add_sha256(file.sha256());
  ALLO_ASSIGN_OR_RETURN(const v1::StatBlobsResponse stat, coordinator.StatBlobs(request));
  if (stat.blobs_size() == 1 && stat.blobs(0).complete()) return common::Ok();
  const int64_t kept_bytes = stat.blobs_size() == 1 ? stat.blobs(0).bytes() : 0;
  return coordinator.UploadBlob(file.path(), file.sha256(), kept_bytes, file.bytes(), [] { return true; });
}

common::Status Upload(worker::CoordinatorClient& coordinator, const v1::ManifestFile& file) {
  for (int attempt = 1;; ++attempt) {
    common::Status status = TryUpload(coordinator, file);
    if (status.ok() || !worker::WorthRetrying(status.error()) || attempt == kTries) return status;
    std::this_thread::sleep_for(std::chrono::seconds(attempt));
  }
}

}  // namespace

common::Status UploadRawFiles(const Client& client, const std::string& ca_file,
                              const std::vector<v1::ManifestFile>& manifest) {
  worker::WorkerOptions options;
  options.coordinator = client.address();
  options.token = client.token();
  options.ca_file = ca_file;
  ALLO_ASSIGN_OR_RETURN(const auto coordinator, worker::CoordinatorClient::Create(options));
  for (const v1::ManifestFile& file : manifest) {
    const common::Status uploaded = Upload(*coordinator, file);
    if (uploaded.ok()) continue;
    const common::Error& error = uploaded.error();
    if (error.code == common::ErrorCode::kUnavailable)
      return client.ErrorOf({grpc::StatusCode::UNAVAILABLE, error.message});
    return common::Error{error.code, "cannot hand '" + file.path() + "' to the coordinator: " + error.message};
  }
  return common::Ok();
}

}  // namespace allometry::cli
