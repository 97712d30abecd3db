#include "worker/daemon/coordinator_client.h"

#include <chrono>
#include <fstream>

#include "common/fault_point.h"
#include "common/files.h"
#include "common/grpc_status.h"

namespace allometry::worker {
namespace {

constexpr int64_t kUnaryTimeoutMs = 60'000;
constexpr size_t kChunkBytes = 1 << 20;

// A transfer may take as long as a thin line needs, but not for ever.
int64_t TransferTimeoutMs(int64_t bytes) { return 120'000 + bytes / 100; }

common::Status Answer(const grpc::Status& status, const std::string& call) {
  return common::FromGrpc(status, "the coordinator's answer to " + call);
}

}  // namespace

bool WorthRetrying(const common::Error& error) {
  using common::ErrorCode;
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kResourceExhausted ||
         error.code == ErrorCode::kAborted || error.code == ErrorCode::kInternal;
}

common::Result<std::unique_ptr<CoordinatorClient>> CoordinatorClient::Create(const WorkerOptions& options) {
  auto credentials = grpc::InsecureChannelCredentials();
  if (!options.ca_file.empty()) {
    ALLO_ASSIGN_OR_RETURN(std::string pem, common::ReadFile(options.ca_file));
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = std::move(pem);
    credentials = grpc::SslCredentials(ssl);
  }
  grpc::ChannelArguments arguments;
  // Pings go out only when nothing has come for so long: they find a peer that hangs without closing.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(64 << 20);
  auto channel = grpc::CreateCustomChannel(options.coordinator, credentials, arguments);
  return std::unique_ptr<CoordinatorClient>(new CoordinatorClient(std::move(channel), options.token));
}

CoordinatorClient::CoordinatorClient(std::shared_ptr<grpc::Channel> channel, std::string token)
    : stub_(v1::WorkerService::NewStub(channel)), token_(std::move(token)) {}

CoordinatorClient::Call::Call(CoordinatorClient& client, int64_t timeout_ms) : client_(client) {
  if (!client.token_.empty()) context.AddMetadata("authorization", "Bearer " + client.token_);
  if (timeout_ms > 0) context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms));
  std::lock_guard lock(client.mutex_);
  client.active_.insert(&context);
  if (client.cancelled_) context.TryCancel();
}

CoordinatorClient::Call::~Call() {
  std::lock_guard lock(client_.mutex_);
  client_.active_.erase(&context);
}

void CoordinatorClient::CancelAll() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  for (auto* context : active_) context->TryCancel();
}

common::Result<v1::RegisterResponse> CoordinatorClient::Register(const v1::RegisterRequest& request) {
  Call call(*this, kUnaryTimeoutMs);
  v1::RegisterResponse response;
  if (auto status = stub_->Register(&call.context, request, &response); !status.ok())
    return Answer(status, "Register").error();
  return response;
}

common::Result<v1::FinishResponse> CoordinatorClient::Finish(const v1::FinishRequest& request) {
  Call call(*this, kUnaryTimeoutMs);
  v1::FinishResponse response;
  if (auto status = stub_->Finish(&call.context, request, &response); !status.ok())
    return Answer(status, "Finish").error();
  return response;
}

common::Result<v1::ReportCheckpointResponse> CoordinatorClient::ReportCheckpoint(
    const v1::ReportCheckpointRequest& request) {
  Call call(*this, kUnaryTimeoutMs);
  v1::ReportCheckpointResponse response;
  if (auto status = stub_->ReportCheckpoint(&call.context, request, &response); !status.ok())
    return Answer(status, "ReportCheckpoint").error();
  return response;
}

common::Result<v1::StatBlobsResponse> CoordinatorClient::StatBlobs(const v1::StatBlobsRequest& request) {
  Call call(*this, kUnaryTimeoutMs);
  v1::StatBlobsResponse response;
  if (auto status = stub_->StatBlobs(&call.context, request, &response); !status.ok())
    return Answer(status, "StatBlobs").error();
  return response;
}

common::Status CoordinatorClient::UploadBlob(const std::filesystem::path& path, const std::string& sha256,
                                             int64_t offset, int64_t total_bytes, const std::function<bool()>& alive) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(offset);
  if (!file) return common::NotFound("cannot read '" + path.string() + "' to upload it");
  Call call(*this, TransferTimeoutMs(total_bytes - offset));
  v1::UploadBlobResponse response;
  auto writer = stub_->UploadBlob(&call.context, &response);
  v1::BlobChunk chunk;
  chunk.set_sha256(sha256);
  chunk.set_total_bytes(total_bytes);
  bool first = true;
  for (int64_t at = offset; first || at < total_bytes; first = false) {
    if (!alive()) call.context.TryCancel();
    const auto size = static_cast<size_t>(std::min<int64_t>(kChunkBytes, total_bytes - at));
    chunk.mutable_data()->resize(size);
    chunk.set_offset(at);
    if (!file.read(chunk.mutable_data()->data(), static_cast<std::streamsize>(size))) {
      call.context.TryCancel();
      (void)writer->Finish();
      return common::DataLoss("'" + path.string() + "' became shorter while it was uploaded");
    }
    if (!writer->Write(chunk)) break;
    common::FaultPoint("worker.upload_part");
    at += static_cast<int64_t>(size);
    chunk.clear_sha256();
    chunk.clear_total_bytes();
  }
  writer->WritesDone();
  auto status = writer->Finish();
  return Answer(status, "UploadBlob");
}

common::Status CoordinatorClient::DownloadBlob(const std::string& sha256, int64_t offset, int64_t total_bytes,
                                               const std::function<common::Status(std::string_view)>& sink,
                                               const std::function<bool()>& alive) {
  Call call(*this, TransferTimeoutMs(total_bytes - offset));
  v1::DownloadBlobRequest request;
  request.set_sha256(sha256);
  request.set_offset(offset);
  auto reader = stub_->DownloadBlob(&call.context, request);
  v1::BlobChunk chunk;
  common::Status sunk;
  while (sunk.ok() && reader->Read(&chunk)) {
    if (!alive()) sunk = common::Unavailable("the download was given up");
    // Chunks name their place; a gap would put bytes where they do not belong.
    else if (chunk.offset() != offset)
      sunk = common::DataLoss("a chunk of blob " + sha256 + " is out of place");
    else
      sunk = sink(chunk.data());
    offset += static_cast<int64_t>(chunk.data().size());
  }
  if (!sunk.ok()) {
    call.context.TryCancel();
    (void)reader->Finish();
    return sunk;
  }
  auto status = reader->Finish();
  return Answer(status, "DownloadBlob");
}

}  // namespace allometry::worker
