#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "common/result.h"

namespace allometry::cli {

// A folder that `allo data build` made, as a sweep names it.
struct BuiltData {
  int64_t vocabulary = 0;
  std::string tokenizer_sha256;
  std::vector<v1::ManifestFile> files;  // without a role: those of the text, and data.json
};

// Hashes come from data.json where the sizes fit it: the run that prepares the data verifies them. kNotFound: no such
// folder; kInvalidArgument: it is none, or a file is not there or has another size.
common::Result<BuiltData> ReadBuiltData(const std::filesystem::path& folder);

}  // namespace allometry::cli
