#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "common/result.h"
#include "worker/trainer/data/build_state.h"
#include "worker/trainer/data/build_survey.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// The second pass over the raw text: tokens.

struct TokenizedPart {
  int64_t documents = 0, tokens = 0, unknown = 0, shards = 0;
};

struct TokenizedText {
  TokenizedPart train, valid;
  std::vector<uint64_t> train_counts;  // by id
};

// Encodes the documents on recipe.threads threads, while the caller's reads on, and writes the shards train-* and
// valid-* into state.data(), each document followed by the end mark, in reading order. The bytes do not depend on the
// threads. Saves how far it is in `state` every few million tokens, and begins there. kDataLoss if the text is no
// longer what the survey saw; kResourceExhausted: the disk is full.
common::Result<TokenizedText> TokenizeText(const PrepareRecipe& recipe, const TextSurvey& survey,
                                           const Tokenizer& tokenizer, BuildState* state, const PassCallback& progress);

}  // namespace allometry::trainer
