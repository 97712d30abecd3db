#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/result.h"

namespace allometry::common {

using Json = nlohmann::json;

// Parses one JSON value; `where` (a path or a name) is put before the parser's message.
Result<Json> ParseJson(std::string_view text, std::string_view where);
Result<Json> ReadJsonFile(const std::filesystem::path& path);

// The canonical text that identities are hashed over: UTF-8, keys sorted, no white space, integers as integers, doubles
// in their shortest form that reads back to the same value. Equal values give equal bytes on every machine.
// Throws std::invalid_argument for NaN or infinity, which have no JSON form.
std::string CanonicalJson(const Json& value);

}  // namespace allometry::common
