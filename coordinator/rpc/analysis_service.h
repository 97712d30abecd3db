#pragma once

#include <filesystem>

#include "allometry/v1/analysis_service.grpc.pb.h"
#include "coordinator/rpc/calls.h"

namespace allometry::coordinator {

// The answers of the service from a database file: what the service itself sends, and what the command line prints
// offline. Thread-safe. Errors are those of records::LoadSqlite and of the analysis.
common::Result<v1::SlopesResponse> ComputeSlopes(const std::filesystem::path& database,
                                                 const v1::SlopesRequest& request);
common::Result<v1::ParetoResponse> ComputePareto(const std::filesystem::path& database,
                                                 const v1::ParetoRequest& request);
common::Result<v1::ScoresResponse> ComputeScores(const std::filesystem::path& database,
                                                 const v1::ScoresRequest& request);
common::Result<v1::CrossoversResponse> ComputeCrossovers(const std::filesystem::path& database,
                                                         const v1::CrossoversRequest& request);
common::Result<v1::RanksResponse> ComputeRanks(const std::filesystem::path& database, const v1::RanksRequest& request);

// Slopes, frontiers, crossovers, ranks and scores of what is finished by now, computed on the pool from the database
// itself, by the same code that the command line runs on a file. Thread-safe; no handler blocks.
class AnalysisServiceImpl final : public v1::AnalysisService::CallbackService {
 public:
  AnalysisServiceImpl(ServiceContext services, std::filesystem::path database)
      : services_(services), database_(std::move(database)) {}

  grpc::ServerUnaryReactor* Slopes(grpc::CallbackServerContext* context, const v1::SlopesRequest* request,
                                   v1::SlopesResponse* response) override;
  grpc::ServerUnaryReactor* Pareto(grpc::CallbackServerContext* context, const v1::ParetoRequest* request,
                                   v1::ParetoResponse* response) override;
  grpc::ServerUnaryReactor* Scores(grpc::CallbackServerContext* context, const v1::ScoresRequest* request,
                                   v1::ScoresResponse* response) override;
  grpc::ServerUnaryReactor* Crossovers(grpc::CallbackServerContext* context, const v1::CrossoversRequest* request,
                                       v1::CrossoversResponse* response) override;
  grpc::ServerUnaryReactor* Ranks(grpc::CallbackServerContext* context, const v1::RanksRequest* request,
                                  v1::RanksResponse* response) override;

 private:
  ServiceContext services_;
  std::filesystem::path database_;
};

}  // namespace allometry::coordinator
