#pragma once

#include <filesystem>
#include <string>

#include "cli/client.h"

namespace allometry::cli {

// Copies a cell's output into a new folder: each file verified by its hash, the folder there as a whole or not at all.
// What an interrupted copy left beside it (`<folder>.partial`) is used. kAlreadyExists: the folder is not empty.
common::Status FetchOutput(const Client& client, const std::string& ca_file, const v1::Output& output,
                           const std::filesystem::path& folder);

}  // namespace allometry::cli
