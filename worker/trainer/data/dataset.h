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

// Text to pretrain on that was built together. `rate`: its share of the training sequences, relative to the other
// parts'. Copies share the mappings.
struct TextPart {
  std::string name;
  double rate = 1;  // above 0
  TokenFile train, valid;
};

// A prepared data set: the folder that Prepare leaves (docs/data.md). Immutable, thread-safe.
class Dataset {
 public:
  // kNotFound, kPermissionDenied; kDataLoss: a part is missing, damaged or of another format version.
  static common::Result<Dataset> Open(const std::filesystem::path& folder);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // All of the same tokenizer; several are a mixture. None: the folder holds tasks alone.
  std::span<const TextPart> parts() const { return parts_; }
  // Of the first part, which must be there.
  const TokenFile& train() const { return parts_[0].train; }
  const TokenFile& valid() const { return parts_[0].valid; }
  // data.json: counts, hashes, the recipe.
  const common::Json& info() const { return info_; }
  const std::filesystem::path& folder() const { return folder_; }

  // UTF-8 bytes that each id reads as inside a text, the blank before a word included; by id, 0 for ids that are no
  // text.
  std::vector<int32_t> TextBytes() const;
  // -ln of each id's share of the training text's tokens, one added to every count; by id, 0 for ids that are no text.
  // The shares of all text ids add up to one. In a mixture each part's counts are scaled to its rate's share of all
  // parts' tokens.
  const std::vector<double>& unigram_nll() const { return unigram_nll_; }

  // Names of the tasks inside, in the recipe's order.
  std::vector<std::string> TaskNames() const;
  common::Result<TaskData> OpenTask(std::string_view name) const;  // kNotFound names those that are there

 private:
  Dataset() = default;
  common::Status OpenTokenizer();
  common::Status OpenText();
  common::Status OpenPart(const std::filesystem::path& folder, std::string name, double rate, const common::Json& info);
  common::Status ReadUnigram();
  common::Result<std::vector<uint64_t>> ReadCounts(const std::filesystem::path& folder) const;
  std::filesystem::path folder_;
  common::Json info_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<TextPart> parts_;
  std::vector<double> unigram_nll_;
};

}  // namespace allometry::trainer
