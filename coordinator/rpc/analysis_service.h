#pragma once

#include <filesystem>

#include "allometry/v1/analysis_service.grpc.pb.h"
#include "coordinator/rpc/calls.h"

namespace allometry::coordinator {

// Slopes and frontiers of what is finished by now, computed on the pool from the database itself, by the same code that the command
// line runs on a file. Thread-safe; no handler blocks.
class AnalysisServiceImpl final : public v1::AnalysisService::CallbackService {
 public:
  AnalysisServiceImpl(ServiceContext services, std::filesystem::path database)
      : services_(services), database_(std::move(database)) {}

  grpc::ServerUnaryReactor* Slopes(grpc::CallbackServerContext* context, const v1::SlopesRequest* request,
                                   v1::SlopesResponse* response) override;
  grpc::ServerUnaryReactor* Pareto(grpc::CallbackServerContext* context, const v1::ParetoRequest* request,
                                   v1::ParetoResponse* response) override;

 private:
  ServiceContext services_;
  std::filesystem::path database_;
};

}  // namespace allometry::coordinator
