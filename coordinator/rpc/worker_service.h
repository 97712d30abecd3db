#pragma once

#include "allometry/v1/worker_service.grpc.pb.h"
#include "coordinator/blobs/blob_store.h"
#include "coordinator/rpc/calls.h"

namespace allometry::coordinator {

// What workers call. Thread-safe; no handler blocks.
class WorkerServiceImpl final : public v1::WorkerService::CallbackService {
 public:
  WorkerServiceImpl(ServiceContext services, BlobStore* blobs) : services_(services), blobs_(blobs) {}

  grpc::ServerUnaryReactor* Register(grpc::CallbackServerContext* context, const v1::RegisterRequest* request,
                                     v1::RegisterResponse* response) override;
  grpc::ServerBidiReactor<v1::SyncRequest, v1::SyncResponse>* Sync(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const v1::FinishRequest* request,
                                   v1::FinishResponse* response) override;
  grpc::ServerUnaryReactor* ReportCheckpoint(grpc::CallbackServerContext* context,
                                             const v1::ReportCheckpointRequest* request,
                                             v1::ReportCheckpointResponse* response) override;
  grpc::ServerUnaryReactor* StatBlobs(grpc::CallbackServerContext* context, const v1::StatBlobsRequest* request,
                                      v1::StatBlobsResponse* response) override;
  grpc::ServerReadReactor<v1::BlobChunk>* UploadBlob(grpc::CallbackServerContext* context,
                                                     v1::UploadBlobResponse* response) override;
  grpc::ServerWriteReactor<v1::BlobChunk>* DownloadBlob(grpc::CallbackServerContext* context,
                                                        const v1::DownloadBlobRequest* request) override;

 private:
  ServiceContext services_;
  BlobStore* blobs_;
};

}  // namespace allometry::coordinator
