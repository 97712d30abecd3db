#include "coordinator/rpc/worker_service.h"

#include "coordinator/rpc/blob_streams.h"

namespace allometry::coordinator {
namespace {

// A question about more blobs than any output has is a mistake, and each costs a look at the disk.
constexpr int kMaxStats = 10'000;

common::Result<v1::StatBlobsResponse> Stats(const BlobStore& blobs, const v1::StatBlobsRequest& request) {
  if (request.sha256_size() > kMaxStats) {
    return common::InvalidArgument("StatBlobs takes at most 10,000 hashes, " + std::to_string(request.sha256_size()) +
                                   " were given");
  }
  v1::StatBlobsResponse response;
  for (const std::string& sha256 : request.sha256()) {
    ALLO_ASSIGN_OR_RETURN(const auto stat, blobs.Stat(sha256));
    v1::BlobStat* out = response.add_blobs();
    out->set_sha256(sha256);
    out->set_complete(stat.complete);
    out->set_bytes(stat.bytes);
  }
  return response;
}

}  // namespace

grpc::ServerUnaryReactor* WorkerServiceImpl::Register(grpc::CallbackServerContext* context,
                                                      const v1::RegisterRequest* request,
                                                      v1::RegisterResponse* response) {
  return ChangeCall(services_, context, request, response, &Core::Register);
}

grpc::ServerBidiReactor<v1::SyncRequest, v1::SyncResponse>* WorkerServiceImpl::Sync(
    grpc::CallbackServerContext* context) {
  if (auto status = services_.auth->Check(*context); !status.ok()) {
    return new Refusal<grpc::ServerBidiReactor<v1::SyncRequest, v1::SyncResponse>>(status);
  }
  return services_.hub->OpenSync();
}

grpc::ServerUnaryReactor* WorkerServiceImpl::Finish(grpc::CallbackServerContext* context,
                                                    const v1::FinishRequest* request, v1::FinishResponse* response) {
  return ChangeCall(services_, context, request, response, &Core::Finish);
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ReportCheckpoint(grpc::CallbackServerContext* context,
                                                              const v1::ReportCheckpointRequest* request,
                                                              v1::ReportCheckpointResponse* response) {
  return ChangeCall(services_, context, request, response, &Core::ReportCheckpoint);
}

grpc::ServerUnaryReactor* WorkerServiceImpl::StatBlobs(grpc::CallbackServerContext* context,
                                                       const v1::StatBlobsRequest* request,
                                                       v1::StatBlobsResponse* response) {
  return PoolCall(services_, context, [this, request, response](grpc::ServerUnaryReactor* reactor) {
    FinishWith(reactor, response, Stats(*blobs_, *request));
  });
}

grpc::ServerReadReactor<v1::BlobChunk>* WorkerServiceImpl::UploadBlob(grpc::CallbackServerContext* context,
                                                                      v1::UploadBlobResponse* response) {
  if (auto status = services_.auth->Check(*context); !status.ok()) {
    return new Refusal<grpc::ServerReadReactor<v1::BlobChunk>>(status);
  }
  return NewUploadReactor(blobs_, services_.pool, response);
}

grpc::ServerWriteReactor<v1::BlobChunk>* WorkerServiceImpl::DownloadBlob(grpc::CallbackServerContext* context,
                                                                         const v1::DownloadBlobRequest* request) {
  if (auto status = services_.auth->Check(*context); !status.ok()) {
    return new Refusal<grpc::ServerWriteReactor<v1::BlobChunk>>(status);
  }
  return NewDownloadReactor(blobs_, services_.pool, *request);
}

}  // namespace allometry::coordinator
