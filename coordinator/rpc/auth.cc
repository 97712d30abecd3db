#include "coordinator/rpc/auth.h"

#include <openssl/crypto.h>

#include "common/grpc_status.h"

namespace allometry::coordinator {

grpc::Status Auth::Check(const grpc::CallbackServerContext& context) const {
  if (token_.empty()) return grpc::Status::OK;
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("authorization");
  const std::string expected = "Bearer " + token_;
  // Compared in a time that does not depend on where the first wrong letter stands.
  if (it != metadata.end() && it->second.size() == expected.size() &&
      CRYPTO_memcmp(it->second.data(), expected.data(), expected.size()) == 0) {
    return grpc::Status::OK;
  }
  return common::ToGrpc(common::PermissionDenied(
      it == metadata.end()
          ? "this coordinator wants a token: give the one it was started with (--token or $ALLOMETRY_TOKEN)"
          : "the token is not the one this coordinator was started with"));
}

}  // namespace allometry::coordinator
