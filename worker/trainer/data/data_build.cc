#include "worker/trainer/data/data_build.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <limits>
#include <set>
#include <string_view>
#include <thread>

#include "common/file_patterns.h"
#include "common/files.h"
#include "common/sha256.h"
#include "worker/trainer/data/build_progress.h"
#include "worker/trainer/data/build_survey.h"
#include "worker/trainer/data/data_options.h"
#include "worker/trainer/data/prepare.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;
using Takes = DataOptions::Takes;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
constexpr int kInterrupted = 130;

constexpr std::pair<std::string_view, CorpusFormat> kFormats[] = {{"text", CorpusFormat::kText},
                                                                  {"jsonl", CorpusFormat::kJsonLines},
                                                                  {"wikipedia", CorpusFormat::kWikipedia},
                                                                  {"tsv", CorpusFormat::kTsv}};

// What both verbs take.
const std::map<std::string, Takes> kTextOptions{{"--in", Takes::kSome},        {"--out", Takes::kOne},
                                                {"--format", Takes::kOne},     {"--field", Takes::kOne},
                                                {"--column", Takes::kOne},     {"--document", Takes::kOne},
                                                {"--vocabulary", Takes::kOne}, {"--skip-bad-rows", Takes::kNothing},
                                                {"--seed", Takes::kOne}};

std::map<std::string, Takes> With(std::map<std::string, Takes> more) {
  more.insert(kTextOptions.begin(), kTextOptions.end());
  return more;
}

// Whatever happens, what is on the disk is whole: so there is nothing to wait for.
void OnInterrupt(int) {
  static constexpr std::string_view kText = "\nstopped; the same command goes on where it was\n";
  (void)!::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(kInterrupted);
}

// Signals end the process at once while this lives.
class EndsAtOnce {
 public:
  EndsAtOnce() : interrupt_(std::signal(SIGINT, OnInterrupt)), terminate_(std::signal(SIGTERM, OnInterrupt)) {}
  ~EndsAtOnce() {
    std::signal(SIGINT, interrupt_);
    std::signal(SIGTERM, terminate_);
  }
  EndsAtOnce(const EndsAtOnce&) = delete;

 private:
  void (*interrupt_)(int);
  void (*terminate_)(int);
};

common::Status NeedOption(const DataOptions& options, const char* name) {
  return options.Has(name) ? common::Ok() : common::Status(common::InvalidArgument(std::string(name) + " is missing"));
}

// Files that the patterns of an option name, without those of `but`.
common::Result<std::vector<fs::path>> FilesOf(const DataOptions& options, const char* option,
                                              const std::vector<fs::path>& but) {
  ALLO_ASSIGN_OR_RETURN(std::vector<fs::path> files, common::FilesOfPatterns(options.Texts(option), "", option));
  std::erase_if(files, [&](const fs::path& file) {
    std::error_code ignored;
    return std::ranges::any_of(but, [&](const fs::path& other) { return fs::equivalent(file, other, ignored); });
  });
  return files;
}

common::Result<std::string> FormatOf(const DataOptions& options, const std::vector<fs::path>& files) {
  const std::string given = options.Text("--format", "auto");
  if (given == "auto") {
    ALLO_ASSIGN_OR_RETURN(const CorpusFormat guessed, GuessFormat(files[0]));
    for (const auto& [name, format] : kFormats)
      if (format == guessed) return std::string(name);
  }
  for (const auto& [name, format] : kFormats)
    if (name == given) return given;
  return common::InvalidArgument("--format is '" + given + "'; it takes auto, text, jsonl, wikipedia or tsv");
}

// An option that only one format has.
common::Status OnlyFor(const DataOptions& options, const char* option, const std::string& format, const char* its) {
  if (!options.Has(option) || format == its) return common::Ok();
  return common::InvalidArgument(std::string(option) + " is for --format " + its + ", and the files are " + format);
}

// The `corpus` of a prepare run, but for its files.
common::Result<Json> CorpusOf(const DataOptions& options, const std::vector<fs::path>& files) {
  if (files.empty()) return common::NotFound("--in names no file that --valid does not name too");
  ALLO_ASSIGN_OR_RETURN(const std::string format, FormatOf(options, files));
  ALLO_RETURN_IF_ERROR(OnlyFor(options, "--field", format, "jsonl"));
  ALLO_RETURN_IF_ERROR(OnlyFor(options, "--column", format, "tsv"));
  ALLO_RETURN_IF_ERROR(OnlyFor(options, "--document", format, "text"));
  Json corpus{{"format", format}};
  for (const char* name : {"field", "column", "document"})
    if (options.Has("--" + std::string(name))) corpus[name] = options.Text("--" + std::string(name), "");
  if (options.Has("--skip-bad-rows")) corpus["skip_bad_rows"] = true;
  return corpus;
}

// Hashes the files into `execution` and lists them as a run does.
class Manifest {
 public:
  explicit Manifest(const PrepareCallback& progress) : progress_(progress) {}

  common::Status Expect(const std::vector<fs::path>& files) {
    for (const fs::path& file : files) {
      std::error_code error;
      total_ += static_cast<int64_t>(fs::file_size(file, error));
      if (error) return common::NotFound("cannot read '" + file.string() + "': " + error.message());
    }
    return common::Ok();
  }

  common::Result<Json> List(const std::vector<fs::path>& files) {
    Json list = Json::array();
    for (const fs::path& file : files) {
      progress_({.stage = "hash", .done = done_, .total = total_});
      ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(file));
      const auto bytes = static_cast<int64_t>(fs::file_size(file));
      done_ += bytes;
      files_[sha256] = file.string();
      list.push_back({{"name", file.filename().string()}, {"bytes", bytes}, {"sha256", sha256}});
    }
    return list;
  }

  const Json& files() const { return files_; }

 private:
  const PrepareCallback& progress_;
  int64_t done_ = 0, total_ = 0;
  Json files_ = Json::object();
};

struct Build {
  Json run, execution;
};

common::Status AddTokenizer(const DataOptions& options, Manifest* manifest, Json* run) {
  Json tokenizer = Json::object();
  if (options.Has("--vocabulary")) {
    ALLO_ASSIGN_OR_RETURN(tokenizer["vocabulary"], options.Integer("--vocabulary", 0, 164, 1'000'000));
  }
  if (options.Has("--tokenizer")) {
    ALLO_ASSIGN_OR_RETURN(const Json listed, manifest->List({options.Text("--tokenizer", "")}));
    tokenizer["model_sha256"] = listed[0]["sha256"];
  }
  (*run)["tokenizer"] = std::move(tokenizer);
  return common::Ok();
}

// The options as a run of kind "prepare", which is the recipe that the data set keeps.
common::Result<Build> PlanBuild(const DataOptions& options, const PrepareCallback& progress) {
  ALLO_ASSIGN_OR_RETURN(const auto valid, FilesOf(options, "--valid", {}));
  ALLO_ASSIGN_OR_RETURN(const auto files, FilesOf(options, "--in", valid));
  ALLO_ASSIGN_OR_RETURN(Json corpus, CorpusOf(options, files));
  Manifest manifest(progress);
  ALLO_RETURN_IF_ERROR(manifest.Expect(valid));
  ALLO_RETURN_IF_ERROR(manifest.Expect(files));
  if (options.Has("--tokenizer")) ALLO_RETURN_IF_ERROR(manifest.Expect({options.Text("--tokenizer", "")}));
  ALLO_ASSIGN_OR_RETURN(corpus["files"], manifest.List(files));
  if (options.Has("--valid")) {
    if (options.Has("--validation-fraction"))
      return common::InvalidArgument(
          "--valid names the validation files: --validation-fraction has no place beside it");
    ALLO_ASSIGN_OR_RETURN(corpus["valid_files"], manifest.List(valid));
  } else {
    ALLO_ASSIGN_OR_RETURN(corpus["validation_fraction"], options.Number("--validation-fraction", 0.01, 1e-6, 0.5));
  }
  Build build;
  build.run = {{"kind", "prepare"}, {"trainer", "builtin"}, {"corpus", std::move(corpus)}};
  ALLO_RETURN_IF_ERROR(AddTokenizer(options, &manifest, &build.run));
  ALLO_ASSIGN_OR_RETURN(build.run["seed"], options.Integer("--seed", 0, 0, kNoLimit));
  ALLO_ASSIGN_OR_RETURN(build.run["shard_tokens"], options.Integer("--shard-tokens", kDefaultShardTokens, 1, kNoLimit));
  const int64_t processors = std::max(1u, std::thread::hardware_concurrency());
  ALLO_ASSIGN_OR_RETURN(const int64_t threads, options.Integer("--threads", processors, 1, 1024));
  build.execution = {{"files", manifest.files()}, {"threads", threads}, {"verified", true}};
  return build;
}

// Adds what a person may do about it.
common::Error Advised(common::Error error) {
  if (error.code == common::ErrorCode::kResourceExhausted)
    error.message += "; make room and give the same command again: it goes on where it was";
  return error;
}

// The recipe of a tokenizer that is trained on all of the text.
common::Result<PrepareRecipe> TokenizerRecipe(const DataOptions& options) {
  ALLO_ASSIGN_OR_RETURN(const auto files, FilesOf(options, "--in", {}));
  ALLO_ASSIGN_OR_RETURN(const Json corpus, CorpusOf(options, files));
  PrepareRecipe recipe;
  for (const auto& [name, format] : kFormats)
    if (name == corpus["format"]) recipe.layout.format = format;
  ALLO_ASSIGN_OR_RETURN(recipe.layout.document, ParseDocumentRule(options.Text("--document", "paragraph")));
  recipe.layout.field = options.Text("--field", recipe.layout.field);
  recipe.layout.column = options.Text("--column", recipe.layout.column);
  recipe.layout.skip_bad_rows = options.Has("--skip-bad-rows");
  recipe.validation_fraction = 0;
  for (const fs::path& file : files) recipe.corpus.push_back({.name = file.filename().string(), .path = file});
  ALLO_ASSIGN_OR_RETURN(recipe.vocabulary, options.Integer("--vocabulary", 0, 164, 1'000'000));
  ALLO_ASSIGN_OR_RETURN(
      recipe.sample_sentences,
      options.Integer("--sample-sentences", DefaultSampleSentences(recipe.vocabulary), 1, 100'000'000));
  ALLO_ASSIGN_OR_RETURN(const int64_t seed, options.Integer("--seed", 0, 0, kNoLimit));
  recipe.seed = static_cast<uint64_t>(seed);
  return recipe;
}

common::Result<std::string> TrainOn(const PrepareRecipe& recipe, const fs::path& work,
                                    const PrepareCallback& progress) {
  int64_t total = 0;
  for (const CorpusSource& source : SourcesOf(recipe)) total += source.file_bytes;
  const auto pass = [&](const char* stage) {
    return [&, stage](const PassProgress& p) {
      return progress({.stage = stage, .done = p.file_bytes, .total = total, .text_bytes = p.text_bytes});
    };
  };
  ALLO_ASSIGN_OR_RETURN(const TextSurvey survey, SurveyText(recipe, work, pass("read")));
  SentenceSample sample(recipe.sample_sentences, recipe.seed);
  ALLO_RETURN_IF_ERROR(SampleSentences(recipe, survey, &sample, pass("sample")));
  progress({.stage = kTrainTokenizerStage, .done = 0, .total = 1});
  return TrainTokenizer(sample.sentences(), recipe.vocabulary);
}

}  // namespace

common::Result<fs::path> BuildDataSet(const std::vector<std::string>& words) {
  ALLO_ASSIGN_OR_RETURN(const DataOptions options, DataOptions::Parse(words,
                                                                      With({{"--valid", Takes::kSome},
                                                                            {"--validation-fraction", Takes::kOne},
                                                                            {"--tokenizer", Takes::kOne},
                                                                            {"--threads", Takes::kOne},
                                                                            {"--shard-tokens", Takes::kOne}}),
                                                                      0));
  ALLO_RETURN_IF_ERROR(NeedOption(options, "--in"));
  ALLO_RETURN_IF_ERROR(NeedOption(options, "--out"));
  const EndsAtOnce signals;
  BuildProgress shown(::isatty(STDERR_FILENO) == 1);
  const PrepareCallback progress = std::ref(shown);
  const fs::path out = options.Text("--out", "");
  ALLO_ASSIGN_OR_RETURN(const Build build, PlanBuild(options, progress));
  const common::Status status = Prepare(build.run, build.execution, out, progress, OnOtherRecipe::kRefuse);
  if (!status) return Advised(status.error());
  return out;
}

common::Result<fs::path> BuildTokenizer(const std::vector<std::string>& words) {
  ALLO_ASSIGN_OR_RETURN(const DataOptions options,
                        DataOptions::Parse(words, With({{"--sample-sentences", Takes::kOne}}), 0));
  for (const char* needed : {"--in", "--out", "--vocabulary"}) ALLO_RETURN_IF_ERROR(NeedOption(options, needed));
  const fs::path out = options.Text("--out", "");
  if (fs::exists(out)) return common::AlreadyExists("'" + out.string() + "' is there already: name another file");
  const EndsAtOnce signals;
  BuildProgress shown(::isatty(STDERR_FILENO) == 1);
  const PrepareCallback progress = std::ref(shown);
  ALLO_ASSIGN_OR_RETURN(const PrepareRecipe recipe, TokenizerRecipe(options));
  const fs::path work = out.string() + ".partial";
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(work));
  const common::Result<std::string> model = TrainOn(recipe, work, progress);
  std::error_code ignored;
  fs::remove_all(work, ignored);
  if (!model) return model.error();
  ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(out, *model));
  return out;
}

}  // namespace allometry::trainer
