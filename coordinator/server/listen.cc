#include "coordinator/server/listen.h"

#include <boost/asio/ip/address.hpp>
#include <charconv>

#include "common/files.h"

namespace allometry::coordinator {
namespace {

common::Error BadAddress(const std::string& address) {
  return common::InvalidArgument("'" + address +
                                 "' is not an address to listen on: give host:port, as in 127.0.0.1:7070 "
                                 "or [::]:7070 (port 0 lets the system choose)");
}

common::Status SplitAddress(const std::string& address, ListenPlan* plan) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return BadAddress(address);
  plan->host = address.substr(0, colon);
  if (plan->host.front() == '[' && plan->host.back() == ']') plan->host = plan->host.substr(1, plan->host.size() - 2);
  const char* end = address.data() + address.size();
  const auto [parsed, error] = std::from_chars(address.data() + colon + 1, end, plan->port);
  if (error != std::errc() || parsed != end || plan->port < 0 || plan->port > 65535 || plan->host.empty()) {
    return BadAddress(address);
  }
  return common::Ok();
}

common::Result<std::shared_ptr<grpc::ServerCredentials>> Credentials(const ListenOptions& options) {
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    return common::InvalidArgument("TLS needs both a certificate and a key (--tls-certificate and --tls-key)");
  }
  if (options.tls_certificate.empty()) return grpc::InsecureServerCredentials();
  ALLO_ASSIGN_OR_RETURN(const std::string certificate, common::ReadFile(options.tls_certificate));
  ALLO_ASSIGN_OR_RETURN(const std::string key, common::ReadFile(options.tls_key));
  if (certificate.find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    return common::InvalidArgument("'" + options.tls_certificate.string() + "' holds no PEM certificate");
  }
  if (key.find("PRIVATE KEY-----") == std::string::npos) {
    return common::InvalidArgument("'" + options.tls_key.string() + "' holds no PEM private key");
  }
  grpc::SslServerCredentialsOptions tls;
  tls.pem_key_cert_pairs.push_back({key, certificate});
  return grpc::SslServerCredentials(tls);
}

}  // namespace

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(host, error);
  return !error && address.is_loopback();
}

common::Result<ListenPlan> PlanListening(const ListenOptions& options) {
  ListenPlan plan;
  ALLO_RETURN_IF_ERROR(SplitAddress(options.address, &plan));
  plan.loopback = IsLoopback(plan.host);
  if (!plan.loopback && (options.tls_certificate.empty() || options.token.empty())) {
    return common::PermissionDenied(
        "listening on '" + options.address +
        "' lets other machines in, and whoever may submit "
        "a sweep decides what the workers run: give --tls-certificate, --tls-key and --token, or "
        "listen on 127.0.0.1");
  }
  ALLO_ASSIGN_OR_RETURN(plan.credentials, Credentials(options));
  return plan;
}

}  // namespace allometry::coordinator
