#pragma once

#include <grpcpp/grpcpp.h>

#include <boost/asio/thread_pool.hpp>

#include "allometry/v1/worker_service.pb.h"
#include "coordinator/blobs/blob_store.h"

// The two artefact streams. Every read and write of the disk happens on `pool`, never on a thread of gRPC. The reactors
// own themselves and go when gRPC is done with them; store and pool must outlive the server.
namespace allometry::coordinator {

inline constexpr size_t kBlobChunkBytes = 1 << 20;

grpc::ServerReadReactor<v1::BlobChunk>* NewUploadReactor(BlobStore* store, boost::asio::thread_pool* pool,
                                                         v1::UploadBlobResponse* response);
grpc::ServerWriteReactor<v1::BlobChunk>* NewDownloadReactor(BlobStore* store, boost::asio::thread_pool* pool,
                                                            const v1::DownloadBlobRequest& request);

}  // namespace allometry::coordinator
