#pragma once

#include <grpcpp/security/server_credentials.h>

#include <filesystem>
#include <memory>
#include <string>

#include "common/result.h"

namespace allometry::coordinator {

// Where and how a coordinator listens.
struct ListenOptions {
  std::string address = "127.0.0.1:0";    // host:port; port 0 lets the system choose
  std::string token;                      // empty: no token asked for
  std::filesystem::path tls_certificate;  // PEM; both or neither
  std::filesystem::path tls_key;
};

struct ListenPlan {
  std::string host;  // without brackets
  int port = 0;
  bool loopback = false;
  std::shared_ptr<grpc::ServerCredentials> credentials;
};

// kInvalidArgument: no host:port, one TLS file without the other. kPermissionDenied: an address that other machines
// reach without both TLS and a token, since whoever can submit a sweep can make every worker run programs.
common::Result<ListenPlan> PlanListening(const ListenOptions& options);

// "127.0.0.1", "::1", "localhost" and the rest of 127/8.
bool IsLoopback(const std::string& host);

}  // namespace allometry::coordinator
