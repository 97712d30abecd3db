#include "coordinator/rpc/analysis_service.h"

#include "coordinator/rpc/imports.h"

namespace allometry::coordinator {

using grpc::ServerUnaryReactor;

ServerUnaryReactor* AnalysisServiceImpl::Slopes(Context* context, const v1::SlopesRequest* request,
                                                v1::SlopesResponse* response) {
  return Answer(context, request, response, &Analyst::Slopes);
}

ServerUnaryReactor* AnalysisServiceImpl::Pareto(Context* context, const v1::ParetoRequest* request,
                                                v1::ParetoResponse* response) {
  return Answer(context, request, response, &Analyst::Pareto);
}

ServerUnaryReactor* AnalysisServiceImpl::Scores(Context* context, const v1::ScoresRequest* request,
                                                v1::ScoresResponse* response) {
  return Answer(context, request, response, &Analyst::Scores);
}

ServerUnaryReactor* AnalysisServiceImpl::Crossovers(Context* context, const v1::CrossoversRequest* request,
                                                    v1::CrossoversResponse* response) {
  return Answer(context, request, response, &Analyst::Crossovers);
}

ServerUnaryReactor* AnalysisServiceImpl::Ranks(Context* context, const v1::RanksRequest* request,
                                               v1::RanksResponse* response) {
  return Answer(context, request, response, &Analyst::Ranks);
}

ServerUnaryReactor* AnalysisServiceImpl::Fit(Context* context, const v1::FitRequest* request,
                                             v1::FitResponse* response) {
  return Answer(context, request, response, &Analyst::Fit);
}

ServerUnaryReactor* AnalysisServiceImpl::Backtest(Context* context, const v1::BacktestRequest* request,
                                                  v1::BacktestResponse* response) {
  return Answer(context, request, response, &Analyst::Backtest);
}

ServerUnaryReactor* AnalysisServiceImpl::Suggest(Context* context, const v1::SuggestRequest* request,
                                                 v1::SuggestResponse* response) {
  return Answer(context, request, response, &Analyst::Suggest);
}

ServerUnaryReactor* AnalysisServiceImpl::Report(Context* context, const v1::ReportRequest* request,
                                                v1::ReportResponse* response) {
  return Answer(context, request, response, &Analyst::Report);
}

// Read and packed on the pool; the core only writes what is ready.
ServerUnaryReactor* AnalysisServiceImpl::Import(Context* context, const v1::ImportRequest* request,
                                                v1::ImportResponse* response) {
  return PoolCall(services_, context, [this, request, response](ServerUnaryReactor* reactor) {
    auto read = ReadImport(*request);
    if (!read) return reactor->Finish(common::ToGrpc(read.error()));
    *response = std::move(read->response);
    PostOrFinish(services_, reactor, [reactor, request, row = std::move(read->row)](Core& core) {
      core.Import(row, request->replace(), [reactor](const common::Result<int64_t>& runs) {
        reactor->Finish(runs ? grpc::Status::OK : common::ToGrpc(runs.error()));
      });
    });
  });
}

ServerUnaryReactor* AnalysisServiceImpl::RemoveImport(Context* context, const v1::RemoveImportRequest* request,
                                                      v1::RemoveImportResponse*) {
  return PoolCall(services_, context, [this, request](ServerUnaryReactor* reactor) {
    PostOrFinish(services_, reactor, [reactor, request](Core& core) {
      core.RemoveImport(request->name(), [reactor](const common::Result<int64_t>& removed) {
        reactor->Finish(removed ? grpc::Status::OK : common::ToGrpc(removed.error()));
      });
    });
  });
}

}  // namespace allometry::coordinator
