#pragma once

#include <filesystem>
#include <string_view>

#include "allometry/v1/sweep.pb.h"
#include "common/result.h"

namespace allometry::coordinator {

// A sweep file, read and checked (docs/sweep-file.md). The error is kInvalidArgument and its message has a line
// "file:line: message" for every mistake in the file; kNotFound or kPermissionDenied when it cannot be read.
common::Result<v1::SweepSpec> ReadSweepFile(const std::filesystem::path& path);

// The same for text that stands somewhere else; `file` is the name that messages give.
common::Result<v1::SweepSpec> ParseSweep(std::string_view yaml, std::string_view file);

}  // namespace allometry::coordinator
