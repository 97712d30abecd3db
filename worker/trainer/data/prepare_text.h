#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "common/result.h"
#include "worker/trainer/data/corpus.h"
#include "worker/trainer/data/prepare_recipe.h"
#include "worker/trainer/data/token_file.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// The two passes over the raw text: what belongs where, then tokens.

enum class Side : uint8_t { kTrain, kValid, kDuplicate };

struct TextSurvey {
  CorpusCounts counts;
  std::vector<Side> sides;  // by document, in reading order
  int64_t train_documents = 0, valid_documents = 0, duplicates = 0;
};

// Called with bytes of the corpus read so far; false stops the pass, which then returns kAborted.
using TextProgress = std::function<bool(int64_t done_bytes)>;

// Reads all documents of the corpus in the recipe's order.
common::Status ReadCorpus(const PrepareRecipe& recipe, const DocumentSink& sink, CorpusCounts* counts,
                          const TextProgress& progress);

// First pass: of equal documents the first counts; validation takes those whose text hashes below the fraction;
// sentences of the training part go to `sample` unless it is null. kDataLoss: no text, or a part without documents.
common::Result<TextSurvey> SurveyText(const PrepareRecipe& recipe, SentenceSample* sample,
                                      const TextProgress& progress);

struct TokenizedPart {
  int64_t documents = 0, tokens = 0, unknown = 0;
};

struct TokenizedText {
  TokenizedPart train, valid;
  std::vector<uint64_t> train_counts;  // by id
};

// Second pass: encodes the documents on recipe.threads threads and writes `folder`/train and `folder`/valid, each
// document followed by the end mark, in reading order. kDataLoss if the text is no longer what the survey saw.
common::Result<TokenizedText> TokenizeText(const PrepareRecipe& recipe, const TextSurvey& survey,
                                           const Tokenizer& tokenizer, const std::filesystem::path& folder,
                                           const TextProgress& progress);

}  // namespace allometry::trainer
