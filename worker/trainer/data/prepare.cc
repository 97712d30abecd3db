#include "worker/trainer/data/prepare.h"

#include <algorithm>

#include "common/fault_point.h"
#include "common/files.h"
#include "common/sha256.h"
#include "worker/trainer/data/build_corpus.h"
#include "worker/trainer/data/build_placed.h"
#include "worker/trainer/data/build_tokens.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/format.h"
#include "worker/trainer/data/prepare_recipe.h"
#include "worker/trainer/data/prepare_tasks.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

// One preparation, from the files to the finished folder. Each method is a stage.
class Preparation {
 public:
  Preparation(const Json& run, const PrepareRecipe& recipe, BuildState* state, const PrepareCallback& progress)
      : run_(run),
        recipe_(recipe),
        state_(state),
        folder_(state->data()),
        progress_(progress),
        vocabulary_(recipe.vocabulary) {
    for (const CorpusSource& source : SourcesOf(recipe)) corpus_bytes_ += source.file_bytes;
  }

  common::Status Build() {
    ALLO_RETURN_IF_ERROR(Verify());
    ALLO_RETURN_IF_ERROR(recipe_.prepared_text ? TakeTokenizer() : recipe_.built.empty() ? PrepareText() : PlaceText());
    if (!recipe_.tasks.empty()) ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder_ / "tasks"));
    for (size_t i = 0; i < recipe_.tasks.size(); ++i) {
      ALLO_RETURN_IF_ERROR(Report("tasks", static_cast<int64_t>(i), static_cast<int64_t>(recipe_.tasks.size())));
      ALLO_ASSIGN_OR_RETURN(Json task, PrepareTask(recipe_.tasks[i], i, recipe_.seed, *tokenizer_, folder_));
      tasks_.push_back(std::move(task));
    }
    return WriteInfo();
  }

 private:
  common::Status Report(const char* stage, int64_t done, int64_t total) const {
    if (!progress_ || progress_({.stage = stage, .done = done, .total = total})) return common::Ok();
    return common::Aborted("stopped on request");
  }

  PassCallback Pass(const char* stage) const {
    return [this, stage](const PassProgress& p) {
      return !progress_ || progress_({.stage = stage,
                                      .done = p.file_bytes,
                                      .total = corpus_bytes_,
                                      .text_bytes = p.text_bytes,
                                      .tokens = p.tokens});
    };
  }

  // The files must be the ones that the run was identified by.
  common::Status Verify() const {
    if (recipe_.verified) return common::Ok();
    const std::vector<RawFile> files = recipe_.AllFiles();
    int64_t done = 0, total = 0;
    for (const RawFile& file : files) total += FileBytes(file.path);
    for (const RawFile& file : files) {
      ALLO_RETURN_IF_ERROR(Report("verify", done, total));
      ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(file.path));
      if (sha256 != file.sha256)
        return common::DataLoss("'" + file.path.string() + "' is not the file '" + file.name +
                                "' that the run names: its SHA-256 is " + sha256 + " and should be " + file.sha256);
      done += FileBytes(file.path);
    }
    return common::Ok();
  }

  // Raw text: each stage takes up what an earlier process left of it.
  common::Status PrepareText() {
    ALLO_ASSIGN_OR_RETURN(const TextSurvey survey, Survey());
    if (progress_ && !survey.counts.first_bad.empty())
      progress_({.stage = "read", .done = corpus_bytes_, .total = corpus_bytes_, .note = NoteOf(survey.counts)});
    ALLO_RETURN_IF_ERROR(CheckSurvey(survey, recipe_));
    ALLO_RETURN_IF_ERROR(MakeTokenizer(survey));
    ALLO_ASSIGN_OR_RETURN(const TokenizedText text,
                          TokenizeText(recipe_, survey, *tokenizer_, state_, Pass("tokenize")));
    text_ = SurveyToJson(survey)["counts"];
    text_.erase("first_bad");  // a path
    train_ = PartJson(text.train);
    valid_ = PartJson(text.valid);
    const auto* counts = reinterpret_cast<const char*>(text.train_counts.data());
    return common::WriteFileAtomically(folder_ / kCountsFile, {counts, text.train_counts.size() * sizeof(uint64_t)});
  }

  static std::string NoteOf(const CorpusCounts& counts) {
    return "left out: " + std::to_string(counts.bad_rows) + " bad rows, and the rest of " +
           std::to_string(counts.damaged_files) + " damaged files; the first: " + counts.first_bad;
  }

  common::Result<TextSurvey> Survey() const {
    const fs::path sides = state_->work() / "sides";
    if (const Json* saved = state_->Find("survey")) {
      ALLO_ASSIGN_OR_RETURN(std::string bytes, common::ReadFile(sides));
      return SurveyFromJson(*saved, std::move(bytes));
    }
    ALLO_ASSIGN_OR_RETURN(TextSurvey survey, SurveyText(recipe_, state_->work(), Pass("read")));
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(sides, survey.sides.bytes()));
    ALLO_RETURN_IF_ERROR(state_->Save("survey", SurveyToJson(survey)));
    return survey;
  }

  common::Status MakeTokenizer(const TextSurvey& survey) {
    const fs::path path = folder_ / kTokenizerFile;
    if (!state_->Find("tokenizer")) {
      SentenceSample sample(recipe_.sample_sentences, recipe_.seed);
      ALLO_ASSIGN_OR_RETURN(const std::string model, TokenizerModel(survey, &sample));
      ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(path, model));
      ALLO_RETURN_IF_ERROR(state_->Save("tokenizer", {{"sample_sentences", sample.sentences().size()}}));
    }
    sampled_ = state_->Find("tokenizer")->at("sample_sentences").get<int64_t>();
    return LoadTokenizer(recipe_.tokenizer ? "tokenizer '" + recipe_.tokenizer->path.string() + "'" : kTokenizerFile);
  }

  common::Result<std::string> TokenizerModel(const TextSurvey& survey, SentenceSample* sample) const {
    if (recipe_.tokenizer) return common::ReadFile(recipe_.tokenizer->path);
    ALLO_RETURN_IF_ERROR(SampleSentences(recipe_, survey, sample, Pass("sample")));
    ALLO_RETURN_IF_ERROR(Report(kTrainTokenizerStage, 0, 1));
    return TrainTokenizer(sample->sentences(), recipe_.vocabulary, LabelWords());
  }

  // What a tokenizer that is trained here must be able to write.
  std::vector<std::string> LabelWords() const {
    std::vector<std::string> words;
    const auto add = [&](const Task& task) { words.insert(words.end(), task.labels().begin(), task.labels().end()); };
    for (const Task* task : Tasks())
      if (std::ranges::count(recipe_.spells, task->benchmark()) > 0) add(*task);
    for (const TaskRecipe& task : recipe_.tasks) add(*task.task);
    return words;
  }

  common::Status LoadTokenizer(const std::string& where) {
    ALLO_ASSIGN_OR_RETURN(const std::string model, common::ReadFile(folder_ / kTokenizerFile));
    ALLO_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::FromBytes(model, vocabulary_, where));
    tokenizer_ = std::make_unique<Tokenizer>(std::move(tokenizer));
    return common::Ok();
  }

  static Json PartJson(const TokenizedPart& p) {
    return {{"documents", p.documents}, {"tokens", p.tokens}, {"unknown_tokens", p.unknown}, {"shards", p.shards}};
  }

  // Tasks alone are written by the tokenizer of their text.
  common::Status TakeTokenizer() {
    ALLO_ASSIGN_OR_RETURN(const Dataset text, Dataset::Open(*recipe_.prepared_text));
    vocabulary_ = text.tokenizer().vocabulary();
    sampled_ = text.info().at("tokenizer").value("sample_sentences", int64_t{0});
    const fs::path model = text.folder() / kTokenizerFile;
    ALLO_RETURN_IF_ERROR(LinkOrCopy(model, folder_ / kTokenizerFile));
    return LoadTokenizer("tokenizer '" + model.string() + "'");
  }

  // Text that was built before.
  common::Status PlaceText() {
    RawFile first;
    for (const BuiltPart& part : recipe_.built) {
      const fs::path folder = recipe_.mixture ? folder_ / kPartsFolder / part.name : folder_;
      ALLO_ASSIGN_OR_RETURN(const PlacedText placed, PlaceBuilt(part, recipe_.vocabulary, folder, &hashes_));
      if (first.sha256.empty()) first = placed.tokenizer;
      if (placed.tokenizer.sha256 != first.sha256)
        return common::InvalidArgument("part '" + part.name + "' has another tokenizer than part '" +
                                       recipe_.built[0].name + "': build both with the same --tokenizer");
      AddPlaced(part, placed.info);
    }
    ALLO_RETURN_IF_ERROR(LinkOrCopy(first.path, folder_ / kTokenizerFile));
    return LoadTokenizer("tokenizer '" + first.path.string() + "'");
  }

  void AddPlaced(const BuiltPart& part, const Json& info) {
    const auto add = [](const Json& counts, Json* sums) {
      for (const auto& [name, count] : counts.items())
        if (count.is_number_integer() && name != "shards")
          (*sums)[name] = sums->value(name, int64_t{0}) + count.get<int64_t>();
    };
    add(info.at("text"), &text_);
    add(info.at("train"), &train_);
    add(info.at("valid"), &valid_);
    built_from_.push_back(info.at("recipe"));
    if (!recipe_.mixture) {
      train_ = info.at("train");
      valid_ = info.at("valid");
      return;
    }
    parts_.push_back(
        {{"name", part.name}, {"rate", part.rate}, {"train", info.at("train")}, {"valid", info.at("valid")}});
  }

  common::Status WriteInfo() const {
    ALLO_RETURN_IF_ERROR(Report("tasks", 1, 1));
    ALLO_ASSIGN_OR_RETURN(const Json files, FilesJson());
    Json info = {{"format_version", kDataFormatVersion},
                 {"numerics_version", kDataNumericsVersion},
                 {"recipe", run_},
                 {"tokenizer",
                  {{"vocabulary", vocabulary_},
                   {"pieces", tokenizer_->pieces()},
                   {"sample_sentences", sampled_},
                   {"sha256", files.at(kTokenizerFile).at("sha256")}}},
                 {"tasks", tasks_},
                 {"files", files}};
    if (!recipe_.prepared_text) info.update({{"text", text_}, {"train", train_}, {"valid", valid_}});
    if (recipe_.mixture) info["parts"] = parts_;
    if (!built_from_.empty()) info["built_from"] = built_from_;
    return common::WriteFileAtomically(folder_ / kDataJson, info.dump(2) + "\n");
  }

  // Bytes and SHA-256 of every file of the folder.
  common::Result<Json> FilesJson() const {
    Json files = Json::object();
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder_)) {
      if (!entry.is_regular_file() || entry.path() == folder_ / kDataJson) continue;
      const auto known = hashes_.find(entry.path());
      ALLO_ASSIGN_OR_RETURN(const std::string sha256,
                            known == hashes_.end() ? common::Sha256HexOfFile(entry.path()) : known->second);
      files[fs::relative(entry.path(), folder_).string()] = {{"bytes", entry.file_size()}, {"sha256", sha256}};
    }
    return files;
  }

  const Json& run_;
  const PrepareRecipe& recipe_;
  BuildState* state_;
  const fs::path folder_;
  const PrepareCallback& progress_;
  int64_t vocabulary_;
  int64_t corpus_bytes_ = 0, sampled_ = 0;
  std::unique_ptr<Tokenizer> tokenizer_;
  KnownHashes hashes_;
  Json text_ = Json::object(), train_ = Json::object(), valid_ = Json::object();  // counts
  Json parts_ = Json::array(), built_from_ = Json::array(), tasks_ = Json::array();
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

// What may pass, or was asked for: the same run goes on where this one ended.
bool WorthKeeping(const common::Error& error) {
  return error.code == common::ErrorCode::kAborted || error.code == common::ErrorCode::kResourceExhausted;
}

common::Status RefuseOther(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder, ignored) || fs::is_empty(folder, ignored)) return common::Ok();
  const bool data = fs::exists(folder / kDataJson, ignored);
  return common::AlreadyExists("'" + folder.string() + "' " +
                               (data ? "holds a data set that was built from other files or with other options, or "
                                       "that is damaged"
                                     : "is not empty and holds no data set") +
                               ": name another folder, or remove it");
}

}  // namespace

common::Status Prepare(const Json& run, const Json& execution, const fs::path& output_dir,
                       const PrepareCallback& progress, OnOtherRecipe on_other) {
  ALLO_ASSIGN_OR_RETURN(const PrepareRecipe recipe, ParsePrepare(run, execution));
  const fs::path folder = fs::absolute(output_dir).lexically_normal();
  if (IsComplete(folder, run)) return common::Ok();
  if (on_other == OnOtherRecipe::kRefuse) ALLO_RETURN_IF_ERROR(RefuseOther(folder));
  ALLO_ASSIGN_OR_RETURN(BuildState state, BuildState::Open(folder.string() + ".partial", run, on_other));
  common::Status status = Preparation(run, recipe, &state, progress).Build();
  common::FaultPoint("trainer.data_written");
  if (status) return state.Publish(folder);
  if (!WorthKeeping(status.error())) state.Discard();
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
