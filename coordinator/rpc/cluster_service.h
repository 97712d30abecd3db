#pragma once

#include <filesystem>
#include <mutex>

#include "allometry/v1/sweep_service.grpc.pb.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/rpc/calls.h"

namespace allometry::coordinator {

// The coordinator itself and its workers. Thread-safe; no handler blocks.
class ClusterServiceImpl final : public v1::ClusterService::CallbackService {
 public:
  ClusterServiceImpl(ServiceContext services, const BlobStore* blobs, std::filesystem::path database)
      : services_(services), blobs_(blobs), database_(std::move(database)) {}

  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context, const v1::StatusRequest* request,
                                   v1::StatusResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context, const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext* context, const v1::DrainWorkerRequest* request,
                                        v1::DrainWorkerResponse* response) override;
  grpc::ServerUnaryReactor* Backup(grpc::CallbackServerContext* context, const v1::BackupRequest* request,
                                   v1::BackupResponse* response) override;

 private:
  struct Disk {
    int64_t database_bytes = 0;
    int64_t blob_bytes = 0;
    int64_t free_bytes = 0;
  };
  Disk MeasureDisk();

  ServiceContext services_;
  const BlobStore* blobs_;
  std::filesystem::path database_;
  std::mutex mutex_;  // guards what follows: walking over many blobs takes long, so it is done now and then
  int64_t blob_bytes_ = 0;
  int64_t measured_boot_ms_ = -1;
};

}  // namespace allometry::coordinator
