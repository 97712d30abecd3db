#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/result.h"

namespace allometry::trainer {

// `allo-trainer data build`: the words behind the verb. Returns the folder that holds the data set, which may have been
// complete already. Errors as Prepare's, with what to do.
common::Result<std::filesystem::path> BuildDataSet(const std::vector<std::string>& words);

// `allo-trainer data tokenizer`: trains a SentencePiece model on raw text. Returns the file.
common::Result<std::filesystem::path> BuildTokenizer(const std::vector<std::string>& words);

}  // namespace allometry::trainer
