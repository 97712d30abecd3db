#include "worker/trainer/data/dataset.h"

#include <cmath>
#include <cstring>

#include "common/files.h"
#include "common/ids.h"
#include "worker/trainer/data/format.h"
#include "worker/trainer/data/token_ids.h"

namespace allometry::trainer {

namespace fs = std::filesystem;

namespace {

// The format version whose sides are single pairs of files.
constexpr int64_t kUnnumberedShards = 1;

common::Result<TokenFile> OpenSide(const fs::path& stem, const common::Json& side, int64_t version, int token_bytes) {
  if (version == kUnnumberedShards) return TokenFile::Open(stem, token_bytes);
  return TokenFile::OpenShards(stem, side.at("shards").get<int64_t>(), token_bytes);
}

common::Error Unreadable(const fs::path& folder, const std::string& what) {
  return common::DataLoss("'" + (folder / kDataJson).string() + "': " + what + "; prepare the data again");
}

}  // namespace

common::Result<Dataset> Dataset::Open(const fs::path& folder) {
  Dataset data;
  data.folder_ = folder;
  ALLO_ASSIGN_OR_RETURN(const std::string text, common::ReadFile(folder / kDataJson));
  auto json = common::ParseJson(text, (folder / kDataJson).string());
  if (!json) return Unreadable(folder, json.error().message);
  data.info_ = std::move(*json);
  try {
    const int64_t version = data.info_.at("format_version").get<int64_t>();
    if (version != kDataFormatVersion && version != kUnnumberedShards)
      return Unreadable(folder, "format version " + std::to_string(version) + ", this program reads version " +
                                    std::to_string(kDataFormatVersion));
    ALLO_RETURN_IF_ERROR(data.OpenTokenizer());
    if (data.info_.contains("train")) ALLO_RETURN_IF_ERROR(data.OpenText());
  } catch (const common::Json::exception& e) {
    return Unreadable(folder, e.what());
  }
  return data;
}

common::Status Dataset::OpenTokenizer() {
  const int64_t vocabulary = info_.at("tokenizer").at("vocabulary").get<int64_t>();
  ALLO_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(folder_ / kTokenizerFile, vocabulary));
  tokenizer_ = std::make_shared<const Tokenizer>(std::move(tokenizer));
  return common::Ok();
}

common::Status Dataset::OpenText() {
  if (!info_.contains("parts")) {
    ALLO_RETURN_IF_ERROR(OpenPart(folder_, "text", 1, info_));
  } else {
    for (const common::Json& part : info_.at("parts")) {
      const std::string name = part.at("name").get<std::string>();
      ALLO_RETURN_IF_ERROR(OpenPart(folder_ / kPartsFolder / name, name, part.at("rate").get<double>(), part));
    }
  }
  if (parts_.empty()) return Unreadable(folder_, "it has no parts");
  return ReadUnigram();
}

common::Status Dataset::OpenPart(const fs::path& folder, std::string name, double rate, const common::Json& info) {
  const int token_bytes = TokenBytes(tokenizer_->vocabulary());
  const int64_t version = info_.at("format_version").get<int64_t>();
  TextPart part{.name = std::move(name), .rate = rate, .train = {}, .valid = {}};
  ALLO_ASSIGN_OR_RETURN(part.train, OpenSide(folder / "train", info.at("train"), version, token_bytes));
  ALLO_ASSIGN_OR_RETURN(part.valid, OpenSide(folder / "valid", info.at("valid"), version, token_bytes));
  if (part.train.tokens() != info.at("train").at("tokens").get<int64_t>() ||
      part.valid.tokens() != info.at("valid").at("tokens").get<int64_t>())
    return Unreadable(folder_, "the token files have other lengths than it says");
  parts_.push_back(std::move(part));
  return common::Ok();
}

common::Result<std::vector<uint64_t>> Dataset::ReadCounts(const fs::path& folder) const {
  const fs::path path = folder / kCountsFile;
  ALLO_ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(path));
  std::vector<uint64_t> counts(static_cast<size_t>(tokenizer_->vocabulary()));
  if (bytes.size() != counts.size() * sizeof(uint64_t))
    return common::DataLoss("'" + path.string() + "' does not fit the vocabulary: prepare the data again");
  std::memcpy(counts.data(), bytes.data(), bytes.size());
  return counts;
}

common::Status Dataset::ReadUnigram() {
  double all_tokens = 0, all_rates = 0;
  for (const TextPart& part : parts_) {
    all_tokens += static_cast<double>(part.train.tokens());
    all_rates += part.rate;
  }
  std::vector<double> counts(static_cast<size_t>(tokenizer_->vocabulary()));
  for (const TextPart& part : parts_) {
    const bool mixed = info_.contains("parts");
    ALLO_ASSIGN_OR_RETURN(const auto part_counts, ReadCounts(mixed ? folder_ / kPartsFolder / part.name : folder_));
    const double scale =
        parts_.size() == 1 ? 1 : part.rate / all_rates * all_tokens / static_cast<double>(part.train.tokens());
    for (size_t id = 0; id < counts.size(); ++id) counts[id] += scale * static_cast<double>(part_counts[id]);
  }
  double total = 0;
  for (size_t id = 0; id < counts.size(); ++id)
    if (tokenizer_->IsText(static_cast<int64_t>(id))) total += counts[id] + 1;
  unigram_nll_.assign(counts.size(), 0.0);
  for (size_t id = 0; id < counts.size(); ++id)
    if (tokenizer_->IsText(static_cast<int64_t>(id))) unigram_nll_[id] = -std::log((counts[id] + 1) / total);
  return common::Ok();
}

std::vector<int32_t> Dataset::TextBytes() const {
  // Decoded behind another piece, since a text's first piece loses its blank.
  const auto bytes = [&](std::vector<int32_t> ids) { return static_cast<int32_t>(tokenizer_->Decode(ids).size()); };
  const int32_t before = bytes({kUnknown});
  std::vector<int32_t> text_bytes(static_cast<size_t>(tokenizer_->vocabulary()));
  for (int32_t id = 0; id < tokenizer_->pieces(); ++id)
    if (tokenizer_->IsText(id)) text_bytes[static_cast<size_t>(id)] = bytes({kUnknown, id}) - before;
  return text_bytes;
}

std::vector<std::string> Dataset::TaskNames() const {
  std::vector<std::string> names;
  for (const common::Json& task : info_.value("tasks", common::Json::array())) names.push_back(task.value("name", ""));
  return names;
}

common::Result<TaskData> Dataset::OpenTask(std::string_view name) const {
  std::string known;
  for (const common::Json& task : info_.value("tasks", common::Json::array())) {
    const std::string task_name = task.value("name", "");
    if (task_name == name) return TaskData::Open(folder_, task, TokenBytes(tokenizer_->vocabulary()), tokenizer_);
    known += " " + task_name;
  }
  return common::NotFound("the data set '" + folder_.string() + "' has no task '" + std::string(name) +
                          "'; it was prepared with:" + (known.empty() ? " none" : known));
}

}  // namespace allometry::trainer
