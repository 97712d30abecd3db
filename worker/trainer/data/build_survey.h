#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/build_corpus.h"
#include "worker/trainer/data/build_duplicates.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// The first pass over the raw text: which documents there are, and where each belongs.

enum class Side : uint8_t { kTrain, kValid, kDuplicate };

// One side a document, two bits each.
class DocumentSides {
 public:
  void Add(Side side) {
    if (size_ % 4 == 0) bits_ += '\0';
    Set(size_++, side);
  }
  void Set(int64_t i, Side side) {
    char& four = bits_[static_cast<size_t>(i / 4)];
    four = static_cast<char>((four & ~(3 << ShiftOf(i))) | (static_cast<int>(side) << ShiftOf(i)));
  }
  Side at(int64_t i) const { return static_cast<Side>((bits_[static_cast<size_t>(i / 4)] >> ShiftOf(i)) & 3); }
  int64_t size() const { return size_; }

  // Four documents a byte, the first in the lowest bits.
  const std::string& bytes() const { return bits_; }
  static DocumentSides FromBytes(std::string bytes, int64_t size);

 private:
  static int ShiftOf(int64_t i) { return static_cast<int>(i % 4) * 2; }
  std::string bits_;
  int64_t size_ = 0;
};

struct TextSurvey {
  CorpusCounts counts;
  DocumentSides sides;             // in reading order
  std::vector<int64_t> documents;  // by source
  int64_t train_documents = 0, valid_documents = 0, duplicates = 0;
  int64_t duplicates_of_validation = 0;  // those of the duplicates whose first is a validation document
};

// Reads all documents. Of equal ones the first counts; validation has those of sources of its own, if there are any,
// else those whose text hashes below the fraction. Memory: two bits a document, and DuplicateFinder's. `work`: a folder
// for its files.
common::Result<TextSurvey> SurveyText(const PrepareRecipe& recipe, const std::filesystem::path& work,
                                      const PassCallback& progress);

// kDataLoss: no text, or a side without documents.
common::Status CheckSurvey(const TextSurvey& survey, const PrepareRecipe& recipe);

// A survey but for its sides, which are a file of their own.
common::Json SurveyToJson(const TextSurvey& survey);
common::Result<TextSurvey> SurveyFromJson(const common::Json& json, std::string sides);

// Reads the documents again, from number `first` on. kDataLoss: they are no longer what the survey saw. `number` counts
// all documents of the corpus.
using SurveyedSink = std::function<common::Status(std::string_view document, Side side, int64_t number)>;
common::Status ReadSurveyed(const PrepareRecipe& recipe, const TextSurvey& survey, int64_t first,
                            const SurveyedSink& sink, const PassCallback& progress);

// Sentences of the training side.
common::Status SampleSentences(const PrepareRecipe& recipe, const TextSurvey& survey, SentenceSample* sample,
                               const PassCallback& progress);

}  // namespace allometry::trainer
