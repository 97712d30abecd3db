#pragma once

#include <filesystem>

#include "allometry/v1/analysis_service.grpc.pb.h"
#include "analysis/answer_cache.h"
#include "coordinator/rpc/analyst.h"
#include "coordinator/rpc/calls.h"

namespace allometry::coordinator {

// What is finished by now, analysed on the pool from the database itself, by the same code that the command line runs
// on a file. Imports go through the core, as the database's only writer. Thread-safe; no handler blocks.
class AnalysisServiceImpl final : public v1::AnalysisService::CallbackService {
 public:
  AnalysisServiceImpl(ServiceContext services, std::filesystem::path database)
      : services_(services), analyst_(std::move(database)) {}

  using Context = grpc::CallbackServerContext;
  grpc::ServerUnaryReactor* Slopes(Context* context, const v1::SlopesRequest* request,
                                   v1::SlopesResponse* response) override;
  grpc::ServerUnaryReactor* Pareto(Context* context, const v1::ParetoRequest* request,
                                   v1::ParetoResponse* response) override;
  grpc::ServerUnaryReactor* Scores(Context* context, const v1::ScoresRequest* request,
                                   v1::ScoresResponse* response) override;
  grpc::ServerUnaryReactor* Crossovers(Context* context, const v1::CrossoversRequest* request,
                                       v1::CrossoversResponse* response) override;
  grpc::ServerUnaryReactor* Ranks(Context* context, const v1::RanksRequest* request,
                                  v1::RanksResponse* response) override;
  grpc::ServerUnaryReactor* Fit(Context* context, const v1::FitRequest* request, v1::FitResponse* response) override;
  grpc::ServerUnaryReactor* Backtest(Context* context, const v1::BacktestRequest* request,
                                     v1::BacktestResponse* response) override;
  grpc::ServerUnaryReactor* Suggest(Context* context, const v1::SuggestRequest* request,
                                    v1::SuggestResponse* response) override;
  grpc::ServerUnaryReactor* Report(Context* context, const v1::ReportRequest* request,
                                   v1::ReportResponse* response) override;
  grpc::ServerUnaryReactor* Import(Context* context, const v1::ImportRequest* request,
                                   v1::ImportResponse* response) override;
  grpc::ServerUnaryReactor* RemoveImport(Context* context, const v1::RemoveImportRequest* request,
                                         v1::RemoveImportResponse* response) override;

 private:
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Answer(Context* context, const Request* request, Response* response,
                                   common::Result<Response> (Analyst::*method)(const Request&) const) {
    return PoolCall(services_, context, [this, request, response, method](grpc::ServerUnaryReactor* reactor) {
      if (const auto status = AnswerInto(*request, response, method); !status)
        return reactor->Finish(common::ToGrpc(status.error()));
      reactor->Finish(grpc::Status::OK);
    });
  }

  // The same question about the same data is answered from memory.
  template <typename Request, typename Response>
  common::Status AnswerInto(const Request& request, Response* response,
                            common::Result<Response> (Analyst::*method)(const Request&) const) {
    ALLO_ASSIGN_OR_RETURN(const std::string version, analyst_.DataVersion());
    const std::string question = request.GetTypeName() + "\n" + version + "\n" + request.SerializeAsString();
    if (const auto known = answers_.Find(question); known && response->ParseFromString(*known)) return common::Ok();
    ALLO_ASSIGN_OR_RETURN(*response, (analyst_.*method)(request));
    answers_.Put(question, response->SerializeAsString());
    return common::Ok();
  }

  static constexpr size_t kAnswerBytes = size_t{64} << 20;
  ServiceContext services_;
  Analyst analyst_;
  analysis::AnswerCache answers_{kAnswerBytes};
};

}  // namespace allometry::coordinator
