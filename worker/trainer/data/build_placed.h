#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/prepare_recipe.h"

namespace allometry::trainer {

// SHA-256 of files by their paths, where it is known.
using KnownHashes = std::map<std::filesystem::path, std::string>;

// A data set that was built before, as the text of another one.
struct PlacedText {
  common::Json info;  // its data.json
  RawFile tokenizer;
};

// Puts the part's token files and counts into `folder`, as hard links where the file system lets them, else as clones
// of its blocks, else as copies, and notes their hashes. The files have been verified. kInvalidArgument: the part is no
// built data set, lacks a file, or has another vocabulary than `vocabulary`; kDataLoss: its files are not those that
// its data.json names.
common::Result<PlacedText> PlaceBuilt(const BuiltPart& part, int64_t vocabulary, const std::filesystem::path& folder,
                                      KnownHashes* hashes);

// kResourceExhausted: the disk is full.
common::Status LinkOrCopy(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace allometry::trainer
