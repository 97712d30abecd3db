#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "common/result.h"

namespace allometry::cli {

// Where the data of Debian's packages lies; the environment variables ALLOMETRY_DICTD_DIR and ALLOMETRY_WORDNET_DIR put
// other folders in their place.
struct DataFolders {
  std::filesystem::path dictd, wordnet;
};
DataFolders DataFoldersFromEnvironment();

// Every file that a checked sweep needs, found on this machine, with size and SHA-256: patterns relative to the spec's
// data_root, and that to `folder` (the sweep file's own), sorted by path. kNotFound: a pattern without files, or which
// Debian package is missing; kInvalidArgument: an empty file or one that is no file.
common::Result<std::vector<v1::ManifestFile>> ResolveManifest(const v1::SweepSpec& spec,
                                                              const std::filesystem::path& folder,
                                                              const DataFolders& data = DataFoldersFromEnvironment());

}  // namespace allometry::cli
