#pragma once

#include <string>

#include "common/json.h"

namespace allometry::coordinator {

// Raised when the meaning of `run` objects changes so that old results must not be reused.
inline constexpr int kIdentityVersion = 1;

// SHA-256 over the canonical JSON of {"identity_version", "run", "precision" unless auto}, with the fields of `run`
// that equal their frozen default left out: so a field that a later version adds, at its default, changes no identity.
std::string IdentityOf(const common::Json& run, const std::string& precision);

}  // namespace allometry::coordinator
