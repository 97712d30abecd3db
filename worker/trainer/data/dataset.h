#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/token_file.h"
#include "worker/trainer/tasks/task_data.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// A prepared data set: the folder that Prepare leaves (docs/data.md). Immutable, thread-safe.
class Dataset {
 public:
  // kNotFound, kPermissionDenied; kDataLoss: a part is missing, damaged or of another format version.
  static common::Result<Dataset> Open(const std::filesystem::path& folder);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const TokenFile& train() const { return train_; }
  const TokenFile& valid() const { return valid_; }
  // data.json: counts, hashes, the recipe.
  const common::Json& info() const { return info_; }
  const std::filesystem::path& folder() const { return folder_; }

  // Which ids are text, by id, of size vocabulary().
  std::vector<bool> IsText() const;
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
  std::vector<double> unigram_nll_;
};

}  // namespace allometry::trainer
