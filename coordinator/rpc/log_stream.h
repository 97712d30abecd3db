#pragma once

#include <filesystem>

#include "coordinator/rpc/calls.h"

namespace allometry::coordinator {

// What an attempt wrote to stdout and stderr. With `follow` it waits for more until the run is finished, and goes on
// with the next attempt when no certain one was asked for. Owned by gRPC.
grpc::ServerWriteReactor<v1::LogChunk>* NewLogStream(const ServiceContext& services,
                                                     const std::filesystem::path& database,
                                                     const v1::LogsRequest& request);

}  // namespace allometry::coordinator
