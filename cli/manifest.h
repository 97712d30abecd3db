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

// Fills in what a sweep leaves to its built data set: tokenizer.vocabulary. kInvalidArgument: the sweep names another;
// errors of ReadBuiltData. Nothing for raw text.
common::Status CompleteFromData(const std::filesystem::path& folder, v1::SweepSpec* spec);

// Every file that a checked sweep needs, found on this machine, with size and SHA-256: patterns relative to the
// spec's data_root, and that to `folder` (the sweep file's own), sorted by path; those that are named as validation are
// no training text. kNotFound: a pattern without files, or which Debian package is missing; kInvalidArgument: an empty
// file or one that is no file, parts of a mixture with different tokenizers; errors of ReadBuiltData.
common::Result<std::vector<v1::ManifestFile>> ResolveManifest(const v1::SweepSpec& spec,
                                                              const std::filesystem::path& folder,
                                                              const DataFolders& data = DataFoldersFromEnvironment());

}  // namespace allometry::cli
