#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "common/result.h"

namespace allometry::common {

// SHA-256 as 64 lower-case hexadecimal digits.
std::string Sha256Hex(std::string_view bytes);
// Reads the file in 1 MiB pieces.
Result<std::string> Sha256HexOfFile(const std::filesystem::path& path);

// Incremental form, for bytes that arrive in pieces. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(std::string_view bytes);
  std::string FinishHex();  // once

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace allometry::common
