#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/result.h"

namespace allometry::common {

// The files that patterns name (glob(7), with {a,b} and ~), each once, sorted by path. A pattern that is not absolute
// is relative to `folder`. A match that is a folder stands for all files in it, however deep; names that begin with a
// dot are passed over there. `what` (an option or a field) begins each message. kNotFound: a pattern that names no
// file; kPermissionDenied: a folder that cannot be read. Thread-safe.
Result<std::vector<std::filesystem::path>> FilesOfPatterns(const std::vector<std::string>& patterns,
                                                           const std::filesystem::path& folder,
                                                           const std::string& what);

}  // namespace allometry::common
