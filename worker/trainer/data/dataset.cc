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
    if (version != kDataFormatVersion)
      return Unreadable(folder, "format version " + std::to_string(version) + ", this program reads version " +
                                    std::to_string(kDataFormatVersion));
    ALLO_RETURN_IF_ERROR(data.OpenText());
  } catch (const common::Json::exception& e) {
    return Unreadable(folder, e.what());
  }
  return data;
}

common::Status Dataset::OpenText() {
  const int64_t vocabulary = info_.at("tokenizer").at("vocabulary").get<int64_t>();
  ALLO_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(folder_ / kTokenizerFile, vocabulary));
  tokenizer_ = std::make_shared<const Tokenizer>(std::move(tokenizer));
  const int token_bytes = TokenBytes(vocabulary);
  ALLO_ASSIGN_OR_RETURN(train_, TokenFile::Open(folder_ / "train", token_bytes));
  ALLO_ASSIGN_OR_RETURN(valid_, TokenFile::Open(folder_ / "valid", token_bytes));
  if (train_.tokens() != info_.at("train").at("tokens").get<int64_t>() ||
      valid_.tokens() != info_.at("valid").at("tokens").get<int64_t>())
    return Unreadable(folder_, "the token files have other lengths than it says");
  parts_ = {{.name = "text", .rate = 1, .train = train_, .valid = valid_}};
  return ReadUnigram();
}

common::Status Dataset::ReadUnigram() {
  const fs::path path = folder_ / kCountsFile;
  ALLO_ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(path));
  std::vector<uint64_t> counts(static_cast<size_t>(tokenizer_->vocabulary()));
  if (bytes.size() != counts.size() * sizeof(uint64_t))
    return common::DataLoss("'" + path.string() + "' does not fit the vocabulary: prepare the data again");
  std::memcpy(counts.data(), bytes.data(), bytes.size());
  double total = 0;
  for (size_t id = 0; id < counts.size(); ++id)
    if (tokenizer_->IsText(static_cast<int64_t>(id))) total += static_cast<double>(counts[id]) + 1;
  unigram_nll_.assign(counts.size(), 0.0);
  for (size_t id = 0; id < counts.size(); ++id)
    if (tokenizer_->IsText(static_cast<int64_t>(id)))
      unigram_nll_[id] = -std::log((static_cast<double>(counts[id]) + 1) / total);
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
