#pragma once

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "allometry/v1/analysis_service.grpc.pb.h"
#include "allometry/v1/sweep_service.grpc.pb.h"
#include "common/grpc_status.h"
#include "common/result.h"

namespace allometry::cli {

// Where the coordinator is: --coordinator, or the endpoint.json in the data directory.
struct ConnectOptions {
  std::string data_dir;     // --data, else $ALLOMETRY_DATA, else the default
  std::string coordinator;  // "host:port"
  std::string token;        // --token, else $ALLOMETRY_TOKEN, else the endpoint's
  std::string ca_file;      // PEM; TLS when given
};
void AddConnectOptions(CLI::App* verb, ConnectOptions* options);
void AddDataOption(CLI::App* verb, std::string* data_dir);

std::string DataDirOf(const std::string& given);

// A coordinator's services. Thread-safe.
class Client {
 public:
  // Does not connect yet. kNotFound: no endpoint in the data directory.
  static common::Result<std::unique_ptr<Client>> Open(const ConnectOptions& options);
  Client(std::string address, std::string token, const std::string& ca_pem);

  // One unary call with a deadline; errors are the coordinator's, or kUnavailable with how to reach one.
  template <typename Stub, typename Request, typename Response>
  common::Result<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request, std::chrono::seconds deadline = std::chrono::seconds(120)) {
    grpc::ClientContext context;
    Prepare(&context);
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return ErrorOf(status);
    return response;
  }

  void Prepare(grpc::ClientContext* context) const;  // puts the token in
  common::Error ErrorOf(const grpc::Status& status) const;

  v1::SweepService::Stub& sweeps() { return *sweeps_; }
  v1::ClusterService::Stub& cluster() { return *cluster_; }
  v1::AnalysisService::Stub& analysis() { return *analysis_; }
  const std::string& address() const { return address_; }
  const std::string& token() const { return token_; }

 private:
  std::string address_, token_;
  std::unique_ptr<v1::SweepService::Stub> sweeps_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
  std::unique_ptr<v1::AnalysisService::Stub> analysis_;
};

}  // namespace allometry::cli
