#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/token_file.h"
#include "worker/trainer/tasks/task_data.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// One part of a data set's text, with the rate at which pretraining draws from it.
struct TextPart {
  std::string name;
  double rate = 1;  // above 0; only the parts' ratios matter
  TokenFile train, valid;
};

// A prepared data set: the folder that Prepare leaves (docs/data.md). Immutable, thread-safe.
class Dataset {
 public:
  // kNotFound, kPermissionDenied; kDataLoss: a part is missing, damaged or of another format version.
  static common::Result<Dataset> Open(const std::filesystem::path& folder);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const TokenFile& train() const { return train_; }
  const TokenFile& valid() const { return valid_; }
  // What pretraining draws from.
  std::span<const TextPart> parts() const { return parts_; }
  // data.json: counts, hashes, the recipe.
  const common::Json& info() const { return info_; }
  const std::filesystem::path& folder() const { return folder_; }

  // UTF-8 bytes that each id reads as inside a text, the blank before a word included; by id, 0 for ids that are no
  // text.
  std::vector<int32_t> TextBytes() const;
  // -ln of each id's share of the training text's tokens, one added to every count; by id, 0 for ids that are no text.
  // The shares of all text ids add up to one.
  const std::vector<double>& unigram_nll() const { return unigram_nll_; }

  // Names of the tasks inside, in the recipe's order.
  std::vector<std::string> TaskNames() const;
  common::Result<TaskData> OpenTask(std::string_view name) const;  // kNotFound names those that are there

 private:
  Dataset() = default;
  common::Status OpenText();
  common::Status ReadUnigram();
  std::filesystem::path folder_;
  common::Json info_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  TokenFile train_, valid_;
  std::vector<TextPart> parts_;
  std::vector<double> unigram_nll_;
};

}  // namespace allometry::trainer
