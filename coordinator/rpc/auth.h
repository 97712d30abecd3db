#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

namespace allometry::coordinator {

// The bearer token that every call but health and reflection has to carry: metadata "authorization: Bearer <token>".
// Thread-safe.
class Auth {
 public:
  explicit Auth(std::string token) : token_(std::move(token)) {}  // empty: everybody may call

  // OK, or PERMISSION_DENIED with what to do.
  grpc::Status Check(const grpc::CallbackServerContext& context) const;

 private:
  std::string token_;
};

}  // namespace allometry::coordinator
