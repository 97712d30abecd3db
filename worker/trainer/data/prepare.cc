#include "worker/trainer/data/prepare.h"

#include <algorithm>
#include <numeric>

#include "common/fault_point.h"
#include "common/files.h"
#include "common/sha256.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/format.h"
#include "worker/trainer/data/prepare_recipe.h"
#include "worker/trainer/data/prepare_tasks.h"
#include "worker/trainer/data/prepare_text.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

// One preparation, from the files to the finished folder. Each method is a stage.
class Preparation {
 public:
  Preparation(const Json& run, const PrepareRecipe& recipe, fs::path folder, const PrepareCallback& progress)
      : run_(run), recipe_(recipe), folder_(std::move(folder)), progress_(progress) {
    for (const RawFile& file : recipe.corpus) corpus_bytes_ += SizeOf(file);
  }

  common::Status Build() {
    ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder_ / "tasks"));
    ALLO_RETURN_IF_ERROR(Verify());
    ALLO_RETURN_IF_ERROR(PrepareText());
    for (size_t i = 0; i < recipe_.tasks.size(); ++i) {
      ALLO_RETURN_IF_ERROR(Report("tasks", static_cast<int64_t>(i), static_cast<int64_t>(recipe_.tasks.size())));
      ALLO_ASSIGN_OR_RETURN(Json task, PrepareTask(recipe_.tasks[i], i, recipe_.seed, *tokenizer_, folder_));
      tasks_.push_back(std::move(task));
    }
    return WriteInfo();
  }

 private:
  static int64_t SizeOf(const RawFile& file) {
    std::error_code ignored;
    const uintmax_t size = fs::file_size(file.path, ignored);
    return ignored ? 0 : static_cast<int64_t>(size);
  }

  common::Status Report(const char* stage, int64_t done, int64_t total) const {
    if (!progress_ || progress_({stage, done, total})) return common::Ok();
    return common::Aborted("stopped on request");
  }

  TextProgress TextStage(const char* stage) const {
    return [this, stage](int64_t done) { return Report(stage, done, corpus_bytes_).ok(); };
  }

  // The files must be the ones that the run was identified by.
  common::Status Verify() const {
    const std::vector<RawFile> files = recipe_.AllFiles();
    int64_t done = 0, total = 0;
    for (const RawFile& file : files) total += SizeOf(file);
    for (const RawFile& file : files) {
      ALLO_RETURN_IF_ERROR(Report("verify", done, total));
      ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(file.path));
      if (sha256 != file.sha256)
        return common::DataLoss("'" + file.path.string() + "' is not the file '" + file.name +
                                "' that the run names: its SHA-256 is " + sha256 + " and should be " + file.sha256);
      done += SizeOf(file);
    }
    return common::Ok();
  }

  common::Status PrepareText() {
    SentenceSample sample(recipe_.sample_sentences, recipe_.seed);
    ALLO_ASSIGN_OR_RETURN(survey_, SurveyText(recipe_, recipe_.tokenizer ? nullptr : &sample, TextStage("read")));
    ALLO_ASSIGN_OR_RETURN(const std::string model, TokenizerModel(sample));
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder_ / kTokenizerFile, model));
    const std::string where =
        recipe_.tokenizer ? "tokenizer '" + recipe_.tokenizer->path.string() + "'" : kTokenizerFile;
    ALLO_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::FromBytes(model, recipe_.vocabulary, where));
    tokenizer_ = std::make_unique<Tokenizer>(std::move(tokenizer));
    ALLO_ASSIGN_OR_RETURN(text_, TokenizeText(recipe_, survey_, *tokenizer_, folder_, TextStage("tokenize")));
    const auto* counts = reinterpret_cast<const char*>(text_.train_counts.data());
    return common::WriteFileAtomically(folder_ / kCountsFile, {counts, text_.train_counts.size() * sizeof(uint64_t)});
  }

  common::Result<std::string> TokenizerModel(const SentenceSample& sample) {
    if (recipe_.tokenizer) return common::ReadFile(recipe_.tokenizer->path);
    ALLO_RETURN_IF_ERROR(Report(kTrainTokenizerStage, 0, 1));
    sampled_ = static_cast<int64_t>(sample.sentences().size());
    return TrainTokenizer(sample.sentences(), recipe_.vocabulary);
  }

  common::Status WriteInfo() const {
    ALLO_RETURN_IF_ERROR(Report("tasks", 1, 1));
    const auto part = [](const TokenizedPart& p) {
      return Json{{"documents", p.documents}, {"tokens", p.tokens}, {"unknown_tokens", p.unknown}};
    };
    ALLO_ASSIGN_OR_RETURN(const Json files, FilesJson());
    const Json info = {{"format_version", kDataFormatVersion},
                       {"numerics_version", kDataNumericsVersion},
                       {"recipe", run_},
                       {"tokenizer",
                        {{"vocabulary", recipe_.vocabulary},
                         {"pieces", tokenizer_->pieces()},
                         {"sample_sentences", sampled_},
                         {"sha256", files.at(kTokenizerFile).at("sha256")}}},
                       {"text",
                        {{"documents", survey_.counts.documents},
                         {"words", survey_.counts.words},
                         {"duplicates", survey_.duplicates},
                         {"replaced_lines", survey_.counts.replaced_lines},
                         {"cut_documents", survey_.counts.cut_documents}}},
                       {"train", part(text_.train)},
                       {"valid", part(text_.valid)},
                       {"tasks", tasks_},
                       {"files", files}};
    return common::WriteFileAtomically(folder_ / kDataJson, info.dump(2) + "\n");
  }

  // Bytes and SHA-256 of every file of the folder.
  common::Result<Json> FilesJson() const {
    Json files = Json::object();
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder_)) {
      if (!entry.is_regular_file()) continue;
      ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(entry.path()));
      files[fs::relative(entry.path(), folder_).string()] = {{"bytes", entry.file_size()}, {"sha256", sha256}};
    }
    return files;
  }

  const Json& run_;
  const PrepareRecipe& recipe_;
  const fs::path folder_;
  const PrepareCallback& progress_;
  int64_t corpus_bytes_ = 0, sampled_ = 0;
  TextSurvey survey_;
  TokenizedText text_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Json tasks_ = Json::array();
};

// Whether the folder holds what this run would make: the same recipe, and every file with its size.
bool IsComplete(const fs::path& folder, const Json& run) {
  const auto data = Dataset::Open(folder);
  if (!data || data->info().value("recipe", Json()) != run ||
      data->info().value("numerics_version", int64_t{0}) != kDataNumericsVersion)
    return false;
  const Json files = data->info().value("files", Json::object());
  return std::ranges::all_of(files.items(), [&](const auto& item) {
    std::error_code error;
    return fs::file_size(folder / item.key(), error) == item.value().value("bytes", uintmax_t{0}) && !error;
  });
}

common::Status Publish(const fs::path& temporary, const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  ALLO_RETURN_IF_ERROR(common::SyncDirectory(temporary / "tasks"));
  ALLO_RETURN_IF_ERROR(common::SyncDirectory(temporary));
  fs::rename(temporary, folder, error);
  if (error)
    return common::FailedPrecondition("cannot rename '" + temporary.string() + "' to '" + folder.string() +
                                      "': " + error.message());
  return common::SyncDirectory(folder.parent_path());
}

}  // namespace

common::Status Prepare(const Json& run, const Json& execution, const fs::path& output_dir,
                       const PrepareCallback& progress) {
  ALLO_ASSIGN_OR_RETURN(const PrepareRecipe recipe, ParsePrepare(run, execution));
  const fs::path folder = fs::absolute(output_dir).lexically_normal();
  if (IsComplete(folder, run)) return common::Ok();
  const fs::path temporary = folder.string() + ".partial";
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
  common::Status status = Preparation(run, recipe, temporary, progress).Build();
  common::FaultPoint("trainer.data_written");
  if (status) status = Publish(temporary, folder);
  if (!status) fs::remove_all(temporary, ignored);
  return status;
}

ExitCode ExitCodeOfDataError(const common::Error& error) {
  switch (error.code) {
    case common::ErrorCode::kInvalidArgument:
      return ExitCode::kConfigurationError;
    case common::ErrorCode::kAborted:
      return ExitCode::kStopped;
    case common::ErrorCode::kResourceExhausted:
    case common::ErrorCode::kUnavailable:
    case common::ErrorCode::kInternal:
      return ExitCode::kCrash;
    default:
      return ExitCode::kDataError;
  }
}

}  // namespace allometry::trainer
