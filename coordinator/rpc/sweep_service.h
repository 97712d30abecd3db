#pragma once

#include <filesystem>

#include "allometry/v1/sweep_service.grpc.pb.h"
#include "coordinator/rpc/calls.h"

namespace allometry::coordinator {

// What users call about sweeps. Thread-safe; no handler blocks: grids expand, and logs and exports are read, on the
// pool.
class SweepServiceImpl final : public v1::SweepService::CallbackService {
 public:
  SweepServiceImpl(ServiceContext services, std::filesystem::path database)
      : services_(services), database_(std::move(database)) {}

  grpc::ServerUnaryReactor* Plan(grpc::CallbackServerContext* context, const v1::PlanRequest* request,
                                 v1::PlanResponse* response) override;
  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context, const v1::SubmitRequest* request,
                                   v1::SubmitResponse* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetSweepRequest* request,
                                v1::Sweep* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListRequest* request,
                                 v1::ListResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchEvent>* Watch(grpc::CallbackServerContext* context,
                                                  const v1::WatchRequest* request) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;
  grpc::ServerUnaryReactor* Retry(grpc::CallbackServerContext* context, const v1::RetryRequest* request,
                                  v1::RetryResponse* response) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context, const v1::PauseRequest* request,
                                  v1::Sweep* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context, const v1::ResumeRequest* request,
                                   v1::Sweep* response) override;
  grpc::ServerUnaryReactor* Outputs(grpc::CallbackServerContext* context, const v1::OutputsRequest* request,
                                    v1::OutputsResponse* response) override;
  grpc::ServerWriteReactor<v1::LogChunk>* Logs(grpc::CallbackServerContext* context,
                                               const v1::LogsRequest* request) override;
  grpc::ServerWriteReactor<v1::ExportRow>* Export(grpc::CallbackServerContext* context,
                                                  const v1::ExportRequest* request) override;

 private:
  void ReturnFreedMemory();

  ServiceContext services_;
  std::filesystem::path database_;  // what logs and exports are read from
};

}  // namespace allometry::coordinator
