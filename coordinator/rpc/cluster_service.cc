#include "coordinator/rpc/cluster_service.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/files.h"
#include "coordinator/store/reader.h"

namespace allometry::coordinator {
namespace {

constexpr int64_t kMeasureEveryMs = 30'000;

int64_t SizeOf(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

common::Status PlaceBackup(const std::string& partial, const std::string& target) {
  const int fd = ::open(partial.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fchmod(fd, 0600) == 0 && ::fsync(fd) == 0;
  const std::string reason = common::ErrnoText();
  if (fd >= 0) ::close(fd);
  if (!synced) return common::ResourceExhausted("cannot sync '" + partial + "': " + reason);
  // A link and no renaming: it fails where a file has appeared meanwhile.
  if (::link(partial.c_str(), target.c_str()) != 0) {
    return common::AlreadyExists("cannot place '" + target + "': " + common::ErrnoText());
  }
  return common::SyncDirectory(std::filesystem::path(target).parent_path());
}

common::Result<v1::BackupResponse> MakeBackup(const std::filesystem::path& database, const std::string& target) {
  if (!std::filesystem::path(target).is_absolute()) {
    return common::InvalidArgument("a backup wants an absolute path on the coordinator's machine, not '" + target +
                                   "'");
  }
  if (std::filesystem::exists(target)) {
    return common::AlreadyExists("'" + target + "' exists: choose another name, a backup overwrites nothing");
  }
  // Made under another name first, so that what stands under the target is whole even after a crash.
  const std::string partial = target + ".partial";
  ALLO_ASSIGN_OR_RETURN(auto reader, store::Reader::Open(database));
  ALLO_ASSIGN_OR_RETURN(const int64_t bytes, reader->Backup(partial));
  const common::Status placed = PlaceBackup(partial, target);
  std::error_code ignored;
  std::filesystem::remove(partial, ignored);
  if (!placed) return placed.error();
  v1::BackupResponse response;
  response.set_bytes(bytes);
  return response;
}

}  // namespace

ClusterServiceImpl::Disk ClusterServiceImpl::MeasureDisk() {
  Disk disk;
  disk.database_bytes = SizeOf(database_) + SizeOf(database_.string() + "-wal");
  std::error_code error;
  const auto space = std::filesystem::space(database_.parent_path(), error);
  disk.free_bytes = error ? 0 : static_cast<int64_t>(space.available);
  std::lock_guard lock(mutex_);
  const int64_t now = common::BootMillis();
  if (measured_boot_ms_ < 0 || now - measured_boot_ms_ > kMeasureEveryMs) {
    blob_bytes_ = blobs_->TotalBytes();
    measured_boot_ms_ = now;
  }
  disk.blob_bytes = blob_bytes_;
  return disk;
}

grpc::ServerUnaryReactor* ClusterServiceImpl::Status(grpc::CallbackServerContext* context, const v1::StatusRequest*,
                                                     v1::StatusResponse* response) {
  return PoolCall(services_, context, [this, response](grpc::ServerUnaryReactor* reactor) {
    const Disk disk = MeasureDisk();
    PostOrFinish(services_, reactor, [reactor, response, disk](Core& core) {
      *response = core.Status();
      response->set_database_bytes(disk.database_bytes);
      response->set_blob_bytes(disk.blob_bytes);
      response->set_free_disk_bytes(disk.free_bytes);
      reactor->Finish(grpc::Status::OK);
    });
  });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::ListWorkers(grpc::CallbackServerContext* context,
                                                          const v1::ListWorkersRequest*,
                                                          v1::ListWorkersResponse* response) {
  return ReadCall(services_, context, response,
                  [](Core& core) { return common::Result<v1::ListWorkersResponse>(core.ListWorkers()); });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::DrainWorker(grpc::CallbackServerContext* context,
                                                          const v1::DrainWorkerRequest* request,
                                                          v1::DrainWorkerResponse* response) {
  return ChangeCall(services_, context, request, response, &Core::DrainWorker);
}

grpc::ServerUnaryReactor* ClusterServiceImpl::Backup(grpc::CallbackServerContext* context,
                                                     const v1::BackupRequest* request, v1::BackupResponse* response) {
  return PoolCall(services_, context, [this, request, response](grpc::ServerUnaryReactor* reactor) {
    FinishWith(reactor, response, MakeBackup(database_, request->path()));
  });
}

}  // namespace allometry::coordinator
