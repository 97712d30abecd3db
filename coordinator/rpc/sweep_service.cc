#include "coordinator/rpc/sweep_service.h"

#include <malloc.h>

#include "coordinator/grid/grid.h"
#include "coordinator/rpc/log_stream.h"
#include "coordinator/rpc/pull_stream.h"
#include "coordinator/store/reader.h"

namespace allometry::coordinator {
namespace {

using CellsPointer = std::shared_ptr<std::vector<Cell>>;

// On the pool: a grid of 100,000 cells takes seconds.
template <typename Request>
common::Result<CellsPointer> ExpandRequest(const Request& request) {
  ALLO_ASSIGN_OR_RETURN(auto cells, Expand(request.spec(), {request.manifest().begin(), request.manifest().end()}));
  return std::make_shared<std::vector<Cell>>(std::move(cells));
}

// One export under way; used by one thread at a time.
class ExportRun {
 public:
  ExportRun(std::filesystem::path database, v1::ExportRequest request)
      : database_(std::move(database)), request_(std::move(request)) {}

  void Next(PullStream<v1::ExportRow>* stream) {
    if (!request_.format().empty()) return NextText(stream);
    if (auto ready = Fill(); !ready) return stream->End(common::ToGrpc(ready.error()));
    if (next_ == rows_.size()) return stream->End(grpc::Status::OK);
    v1::ExportRow message;
    message.set_json(std::move(rows_[next_++]));
    stream->Write(std::move(message));
  }

 private:
  void NextText(PullStream<v1::ExportRow>* stream) {
    if (auto opened = Open(); !opened) return stream->End(common::ToGrpc(opened.error()));
    auto text = exporter_->NextText(request_.format());
    if (!text) return stream->End(common::ToGrpc(text.error()));
    if (!*text) return stream->End(grpc::Status::OK);
    v1::ExportRow message;
    message.set_text(std::move(**text));
    stream->Write(std::move(message));
  }

  common::Status Open() {
    if (exporter_) return common::Ok();
    ALLO_ASSIGN_OR_RETURN(reader_, store::Reader::Open(database_));
    ALLO_ASSIGN_OR_RETURN(exporter_, store::Exporter::Start(reader_.get(), request_.what(), request_.sweep()));
    return common::Ok();
  }

  // Leaves rows_ with one to send, unless the end has come.
  common::Status Fill() {
    ALLO_RETURN_IF_ERROR(Open());
    while (next_ == rows_.size()) {
      ALLO_ASSIGN_OR_RETURN(auto page, exporter_->NextPage());
      if (!page) return common::Ok();
      rows_ = std::move(*page);
      next_ = 0;
    }
    return common::Ok();
  }

  std::filesystem::path database_;
  v1::ExportRequest request_;
  std::unique_ptr<store::Reader> reader_;
  std::unique_ptr<store::Exporter> exporter_;
  std::vector<std::string> rows_;
  size_t next_ = 0;
};

}  // namespace

grpc::ServerUnaryReactor* SweepServiceImpl::Plan(grpc::CallbackServerContext* context, const v1::PlanRequest* request,
                                                 v1::PlanResponse* response) {
  return PoolCall(services_, context, [this, request, response](grpc::ServerUnaryReactor* reactor) {
    auto cells = ExpandRequest(*request);
    if (!cells) return reactor->Finish(common::ToGrpc(cells.error()));
    PostOrFinish(services_, reactor,
                 [reactor, response, cells = *cells](Core& core) { FinishWith(reactor, response, core.Plan(*cells)); });
  });
}

// A large expansion takes many times the memory of what stays of it. The event runs when the batch that let go of it is
// over.
void SweepServiceImpl::ReturnFreedMemory() {
  services_.hub->Post([pool = services_.pool](Core&) { boost::asio::post(*pool, [] { ::malloc_trim(0); }); });
}

grpc::ServerUnaryReactor* SweepServiceImpl::Submit(grpc::CallbackServerContext* context,
                                                   const v1::SubmitRequest* request, v1::SubmitResponse* response) {
  return PoolCall(services_, context, [this, request, response](grpc::ServerUnaryReactor* reactor) {
    auto cells = ExpandRequest(*request);
    if (!cells) return reactor->Finish(common::ToGrpc(cells.error()));
    PostOrFinish(services_, reactor, [this, reactor, request, response, cells = *cells](Core& core) {
      core.Submit(*request, std::move(*cells), [this, reactor, response](common::Result<v1::SubmitResponse> result) {
        FinishWith(reactor, response, std::move(result));
        ReturnFreedMemory();
      });
    });
  });
}

grpc::ServerUnaryReactor* SweepServiceImpl::Get(grpc::CallbackServerContext* context,
                                                const v1::GetSweepRequest* request, v1::Sweep* response) {
  return ReadCall(services_, context, response, [request](Core& core) { return core.Get(request->name()); });
}

grpc::ServerUnaryReactor* SweepServiceImpl::List(grpc::CallbackServerContext* context, const v1::ListRequest* request,
                                                 v1::ListResponse* response) {
  return ReadCall(services_, context, response, [request](Core& core) { return core.List(*request); });
}

grpc::ServerWriteReactor<v1::WatchEvent>* SweepServiceImpl::Watch(grpc::CallbackServerContext* context,
                                                                  const v1::WatchRequest* request) {
  if (auto status = services_.auth->Check(*context); !status.ok()) {
    return new Refusal<grpc::ServerWriteReactor<v1::WatchEvent>>(status);
  }
  return services_.hub->OpenWatch(*request);
}

grpc::ServerUnaryReactor* SweepServiceImpl::Explain(grpc::CallbackServerContext* context,
                                                    const v1::ExplainRequest* request, v1::ExplainResponse* response) {
  return ReadCall(services_, context, response, [request](Core& core) { return core.Explain(*request); });
}

grpc::ServerUnaryReactor* SweepServiceImpl::Cancel(grpc::CallbackServerContext* context,
                                                   const v1::CancelRequest* request, v1::CancelResponse* response) {
  return ChangeCall(services_, context, request, response, &Core::Cancel);
}

grpc::ServerUnaryReactor* SweepServiceImpl::Retry(grpc::CallbackServerContext* context, const v1::RetryRequest* request,
                                                  v1::RetryResponse* response) {
  return ChangeCall(services_, context, request, response, &Core::Retry);
}

grpc::ServerUnaryReactor* SweepServiceImpl::Pause(grpc::CallbackServerContext* context, const v1::PauseRequest* request,
                                                  v1::Sweep* response) {
  return ChangeCall(services_, context, request, response, &Core::Pause);
}

grpc::ServerUnaryReactor* SweepServiceImpl::Resume(grpc::CallbackServerContext* context,
                                                   const v1::ResumeRequest* request, v1::Sweep* response) {
  return ChangeCall(services_, context, request, response, &Core::Resume);
}

grpc::ServerUnaryReactor* SweepServiceImpl::Outputs(grpc::CallbackServerContext* context,
                                                    const v1::OutputsRequest* request, v1::OutputsResponse* response) {
  return ReadCall(services_, context, response, [request](Core& core) { return core.OutputsOfCell(*request); });
}

grpc::ServerWriteReactor<v1::LogChunk>* SweepServiceImpl::Logs(grpc::CallbackServerContext* context,
                                                               const v1::LogsRequest* request) {
  if (auto status = services_.auth->Check(*context); !status.ok()) {
    return new Refusal<grpc::ServerWriteReactor<v1::LogChunk>>(status);
  }
  return NewLogStream(services_, database_, *request);
}

grpc::ServerWriteReactor<v1::ExportRow>* SweepServiceImpl::Export(grpc::CallbackServerContext* context,
                                                                  const v1::ExportRequest* request) {
  if (auto status = services_.auth->Check(*context); !status.ok()) {
    return new Refusal<grpc::ServerWriteReactor<v1::ExportRow>>(status);
  }
  auto run = std::make_shared<ExportRun>(database_, *request);
  return new PullStream<v1::ExportRow>(services_.pool, [run](PullStream<v1::ExportRow>* stream) { run->Next(stream); });
}

}  // namespace allometry::coordinator
