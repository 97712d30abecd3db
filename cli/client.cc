#include "cli/client.h"

#include <cstdlib>

#include "common/files.h"
#include "coordinator/server/data_directory.h"

namespace allometry::cli {
namespace {

std::string FromEnvironment(const std::string& given, const char* variable) {
  if (!given.empty()) return given;
  const char* value = std::getenv(variable);
  return value ? value : "";
}

}  // namespace

void AddDataOption(CLI::App* verb, std::string* data_dir) {
  verb->add_option("--data", *data_dir,
                   "Data directory (default: $ALLOMETRY_DATA, or allometry in the user's state folder)");
}

void AddConnectOptions(CLI::App* verb, ConnectOptions* options) {
  AddDataOption(verb, &options->data_dir);
  verb->add_option("--coordinator", options->coordinator,
                   "host:port of the coordinator (default: as the data directory says)");
  verb->add_option("--token", options->token,
                   "Access token (default: $ALLOMETRY_TOKEN, or as the data directory says)");
  verb->add_option("--ca", options->ca_file, "Certificate (PEM) to verify the coordinator against; turns TLS on");
}

std::string DataDirOf(const std::string& given) {
  const std::string named = FromEnvironment(given, "ALLOMETRY_DATA");
  return named.empty() ? coordinator::DefaultDataDir().string() : named;
}

common::Result<std::unique_ptr<Client>> Client::Open(const ConnectOptions& options) {
  std::string address = options.coordinator, token = FromEnvironment(options.token, "ALLOMETRY_TOKEN"), ca_pem;
  if (!options.ca_file.empty()) {
    ALLO_ASSIGN_OR_RETURN(ca_pem, common::ReadFile(options.ca_file));
  }
  if (address.empty()) {
    const std::string data_dir = DataDirOf(options.data_dir);
    auto endpoint = coordinator::ReadEndpoint(data_dir);
    if (!endpoint && endpoint.error().code != common::ErrorCode::kNotFound) return endpoint.error();
    if (!endpoint)
      return common::NotFound("no coordinator is running on " + data_dir +
                              ": start one (allo coordinator, or allo run), or name one with --coordinator host:port");
    if (endpoint->tls && ca_pem.empty())
      return common::InvalidArgument("the coordinator of " + data_dir +
                                     " uses TLS: give its certificate with --ca FILE");
    address = endpoint->address;
    if (token.empty()) token = endpoint->token;
  }
  return std::make_unique<Client>(address, token, ca_pem);
}

Client::Client(std::string address, std::string token, const std::string& ca_pem)
    : address_(std::move(address)), token_(std::move(token)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // a plan of 100,000 cells is long
  auto credentials = grpc::InsecureChannelCredentials();
  if (!ca_pem.empty()) credentials = grpc::SslCredentials({ca_pem, "", ""});
  const auto channel = grpc::CreateCustomChannel(address_, credentials, arguments);
  sweeps_ = v1::SweepService::NewStub(channel);
  cluster_ = v1::ClusterService::NewStub(channel);
  analysis_ = v1::AnalysisService::NewStub(channel);
}

void Client::Prepare(grpc::ClientContext* context) const {
  if (!token_.empty()) context->AddMetadata("authorization", "Bearer " + token_);
}

common::Error Client::ErrorOf(const grpc::Status& status) const {
  const common::ErrorCode code = common::ErrorCodeOf(status.error_code());
  if (code != common::ErrorCode::kUnavailable) return {code, status.error_message()};
  return common::Unavailable("the coordinator at " + address_ + " does not answer (" + status.error_message() +
                             "): is it running? Start one with allo coordinator, or name another with --coordinator");
}

}  // namespace allometry::cli
