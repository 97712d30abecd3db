#include "worker/trainer/data/prepare_recipe.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>

#include "worker/trainer/data/format.h"
#include "worker/trainer/engine/object_reader.h"
#include "worker/trainer/tasks/jsonl_task.h"

namespace allometry::trainer {
namespace {

using common::Json;
constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();

bool IsSha256(const std::string& s) {
  return s.size() == 64 && s.find_first_not_of("0123456789abcdef") == std::string::npos;
}

common::Result<std::filesystem::path> Locate(const Json& execution, const std::string& sha256,
                                             const std::string& name) {
  const Json files = execution.is_object() ? execution.value("files", Json::object()) : Json::object();
  if (files.is_object() && files.contains(sha256) && files[sha256].is_string())
    return std::filesystem::path(files[sha256].get<std::string>());
  return common::NotFound("execution.files has no path for the file '" + name + "' (SHA-256 " + sha256 + ")");
}

common::Result<RawFile> ParseFile(const Json& entry, const std::string& where, const Json& execution) {
  ObjectReader reader(entry, where);
  RawFile file;
  file.name = reader.String("name", std::nullopt);
  file.bytes = reader.Integer("bytes", -1, -1, kUnbounded);
  file.sha256 = reader.String("sha256", std::nullopt);
  reader.Ignore("role");
  ALLO_RETURN_IF_ERROR(reader.Finish());
  if (!IsSha256(file.sha256))
    return common::InvalidArgument(where + ".sha256 must be 64 lower-case hexadecimal digits, not '" + file.sha256 +
                                   "'");
  ALLO_ASSIGN_OR_RETURN(file.path, Locate(execution, file.sha256, file.name));
  return file;
}

common::Result<std::vector<RawFile>> ParseFiles(const Json& list, const std::string& where, const Json& execution) {
  if (!list.is_array() || list.empty()) return common::InvalidArgument(where + " must be a list of at least one file");
  std::vector<RawFile> files;
  for (size_t i = 0; i < list.size(); ++i) {
    ALLO_ASSIGN_OR_RETURN(RawFile file, ParseFile(list[i], where + "[" + std::to_string(i) + "]", execution));
    files.push_back(std::move(file));
  }
  return files;
}

bool EndsWith(const RawFile& file, std::initializer_list<std::string_view> endings) {
  return std::ranges::any_of(endings, [&](std::string_view e) { return file.name.ends_with(e); });
}

// A dictionary is one .dict(.dz) and one .index: the former comes first in the recipe.
common::Status OrderDictionary(std::vector<RawFile>* files) {
  std::ranges::sort(*files, {}, [](const RawFile& f) { return EndsWith(f, {".index"}); });
  if (files->size() == 2 && EndsWith((*files)[0], {".dict", ".dict.dz"}) && EndsWith((*files)[1], {".index"}))
    return common::Ok();
  return common::InvalidArgument("corpus.files of format gcide must be one .dict.dz (or .dict) and its .index");
}

constexpr std::pair<std::string_view, CorpusFormat> kFormatNames[] = {
    {"text", CorpusFormat::kText},    {"jsonl", CorpusFormat::kJsonLines}, {"wikipedia", CorpusFormat::kWikipedia},
    {"tsv", CorpusFormat::kTsv},      {"gcide", CorpusFormat::kGcide},     {"built", CorpusFormat::kBuilt},
    {"mixture", CorpusFormat::kBuilt}};

std::vector<std::string> FormatNames() {
  std::vector<std::string> names;
  for (const auto& [name, format] : kFormatNames) names.emplace_back(name);
  return names;
}

// Raw text: what a document is, which files there are, how some are held out. A member that the format does not have is
// one that nobody asks for, and so a mistake.
common::Status ParseRawText(const Json& execution, ObjectReader* reader, PrepareRecipe* recipe) {
  const CorpusFormat format = recipe->layout.format;
  const bool gcide = format == CorpusFormat::kGcide;
  std::string document = "paragraph";
  if (format == CorpusFormat::kText || gcide)
    document = reader->Choice("document", document, {"paragraph", "line", "file"});
  if (format == CorpusFormat::kJsonLines) recipe->layout.field = reader->String("field", "text");
  if (format == CorpusFormat::kTsv) recipe->layout.column = reader->String("column", "text");
  if (!gcide) recipe->layout.skip_bad_rows = reader->Boolean("skip_bad_rows", false);
  const bool own_validation = !gcide && reader->Has("valid_files");
  const Json& valid = own_validation ? reader->Raw("valid_files", true, "array") : Json();
  if (!own_validation) recipe->validation_fraction = reader->Number("validation_fraction", 0.01, 1e-6, 0.5);
  const Json& files = reader->Raw("files", true, "array");
  ALLO_RETURN_IF_ERROR(reader->Finish());
  ALLO_ASSIGN_OR_RETURN(recipe->layout.document, ParseDocumentRule(document));
  ALLO_ASSIGN_OR_RETURN(recipe->corpus, ParseFiles(files, "run.corpus.files", execution));
  if (own_validation) {
    ALLO_ASSIGN_OR_RETURN(recipe->valid, ParseFiles(valid, "run.corpus.valid_files", execution));
  }
  return gcide ? OrderDictionary(&recipe->corpus) : common::Ok();
}

// The one data set of format "built".
common::Status ParseBuilt(const Json& execution, ObjectReader* reader, PrepareRecipe* recipe) {
  const Json& files = reader->Raw("files", true, "array");
  ALLO_RETURN_IF_ERROR(reader->Finish());
  recipe->built.emplace_back();
  ALLO_ASSIGN_OR_RETURN(recipe->built[0].files, ParseFiles(files, "run.corpus.files", execution));
  return common::Ok();
}

// Part names are folders of the prepared data.
bool IsPartName(const std::string& name) {
  return !name.empty() && name.size() <= 64 && name[0] != '.' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == name.npos;
}

common::Result<BuiltPart> ParsePart(const Json& json, const std::string& where, const Json& execution) {
  ObjectReader reader(json, where);
  BuiltPart part;
  part.name = reader.String("name", std::nullopt);
  part.rate = reader.Number("rate", 1, 1e-6, 1e6);
  const Json& files = reader.Raw("files", true, "array");
  ALLO_RETURN_IF_ERROR(reader.Finish());
  if (!IsPartName(part.name))
    return common::InvalidArgument(where + ".name is '" + part.name +
                                   "'; a name has up to 64 letters, digits, '.', '_' and '-'");
  ALLO_ASSIGN_OR_RETURN(part.files, ParseFiles(files, where + ".files", execution));
  return part;
}

common::Status ParseMixture(const Json& execution, ObjectReader* reader, PrepareRecipe* recipe) {
  recipe->mixture = true;
  const Json& parts = reader->Raw("parts", true, "array");
  ALLO_RETURN_IF_ERROR(reader->Finish());
  std::set<std::string> names;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string where = "run.corpus.parts[" + std::to_string(i) + "]";
    ALLO_ASSIGN_OR_RETURN(BuiltPart part, ParsePart(parts[i], where, execution));
    if (!names.insert(part.name).second)
      return common::InvalidArgument(where + ": part '" + part.name + "' is there twice");
    recipe->built.push_back(std::move(part));
  }
  return recipe->built.empty() ? common::InvalidArgument("run.corpus.parts must be a list of at least one part")
                               : common::Ok();
}

common::Status ParseCorpus(const Json& json, const Json& execution, PrepareRecipe* recipe) {
  ObjectReader reader(json, "run.corpus");
  const std::string format = reader.Choice("format", "text", FormatNames());
  for (const auto& [name, value] : kFormatNames)
    if (name == format) recipe->layout.format = value;
  if (format == "built") return ParseBuilt(execution, &reader, recipe);
  if (format == "mixture") return ParseMixture(execution, &reader, recipe);
  return ParseRawText(execution, &reader, recipe);
}

common::Status ParseTokenizer(const Json& json, const Json& execution, PrepareRecipe* recipe) {
  ObjectReader reader(json, "run.tokenizer");
  const std::string sha256 = reader.String("model_sha256", "");
  recipe->vocabulary = reader.Integer("vocabulary", sha256.empty() ? 8'192 : 32'128, 164, 1'000'000);
  recipe->sample_sentences =
      reader.Integer("sample_sentences", DefaultSampleSentences(recipe->vocabulary), 1, 100'000'000);
  const Json& spells = reader.Raw("spells", false, "array");
  ALLO_RETURN_IF_ERROR(reader.Finish());
  for (const Json& benchmark : spells) {
    const auto is_its = [&](const Task* task) { return benchmark == task->benchmark(); };
    if (!std::ranges::any_of(Tasks(), is_its))
      return common::InvalidArgument("run.tokenizer.spells: there is no benchmark " + benchmark.dump());
    recipe->spells.push_back(benchmark.get<std::string>());
  }
  if (sha256.empty()) return common::Ok();
  if (!IsSha256(sha256))
    return common::InvalidArgument("run.tokenizer.model_sha256 must be 64 lower-case hexadecimal digits");
  RawFile file{.name = "tokenizer model", .sha256 = sha256};
  ALLO_ASSIGN_OR_RETURN(file.path, Locate(execution, sha256, file.name));
  recipe->tokenizer = std::move(file);
  return common::Ok();
}

common::Status CheckTaskFiles(const TaskRecipe& recipe, const std::string& where) {
  for (std::string_view wanted : recipe.task->files()) {
    const bool there = std::ranges::any_of(recipe.files, [&](const RawFile& f) { return f.name == wanted; });
    if (!there)
      return common::InvalidArgument(where + ".files lacks '" + std::string(wanted) + "', which task '" +
                                     std::string(recipe.task->name()) + "' reads");
  }
  return common::Ok();
}

// The members of a task of the user's own: JSON lines and what is measured.
struct OwnTask {
  std::string train, valid;
  Json metrics;
};

common::Status FindOrMakeTask(const std::string& name, const std::string& where, const OwnTask& own, bool t5_padding,
                              TaskRecipe* recipe) {
  if (own.train.empty() && own.valid.empty() && own.metrics.is_null()) {
    auto task = FindTask(name);
    if (!task) return common::InvalidArgument(where + ".name: " + task.error().message);
    recipe->task = *task;
    if (!t5_padding) return common::Ok();
    if (name != "squad") return common::InvalidArgument(where + ".t5_padding is for squad only, not for " + name);
    recipe->task = &SquadV11Task(true);
    return common::Ok();
  }
  JsonlTaskOptions options{.name = name, .train_file = own.train, .valid_file = own.valid};
  if (!own.metrics.is_null()) options.metrics.clear();
  for (const Json& metric : own.metrics) {
    if (!metric.is_string()) return common::InvalidArgument(where + ".metrics should be a list of names");
    options.metrics.push_back(metric.get<std::string>());
  }
  auto task = MakeJsonlTask(std::move(options));
  if (!task) return common::InvalidArgument(where + ": " + task.error().message);
  recipe->own = std::move(*task);
  recipe->task = recipe->own.get();
  return common::Ok();
}

common::Result<TaskRecipe> ParseTask(const Json& json, const std::string& where, const Json& execution) {
  ObjectReader reader(json, where);
  const std::string name = reader.String("name", std::nullopt);
  TaskRecipe recipe;
  recipe.max_train = reader.Integer("max_train", 0, 0, kUnbounded);
  recipe.max_valid = reader.Integer("max_valid", 0, 0, kUnbounded);
  recipe.shuffle_labels = reader.Boolean("shuffle_labels", false);
  const bool t5_padding = reader.Boolean("t5_padding", false);
  if (reader.Boolean("skip_bad_rows", false)) recipe.bad_rows = BadRows::kSkip;
  const OwnTask own{reader.String("train", ""), reader.String("valid", ""), reader.Raw("metrics", false, "array")};
  const Json& files = reader.Raw("files", true, "array");
  const int64_t version = reader.Integer("numerics_version", 0, 0, kUnbounded);
  ALLO_RETURN_IF_ERROR(reader.Finish());
  ALLO_RETURN_IF_ERROR(FindOrMakeTask(name, where, own, t5_padding, &recipe));
  if (recipe.bad_rows == BadRows::kSkip && !recipe.task->can_skip_bad_rows())
    return common::InvalidArgument(where + ".skip_bad_rows is not for " + name + ", whose rows belong together");
  if (version != 0 && version != recipe.task->numerics_version())
    return common::InvalidArgument(where + ".numerics_version is " + std::to_string(version) + ", this program has " +
                                   std::to_string(recipe.task->numerics_version()));
  ALLO_ASSIGN_OR_RETURN(recipe.files, ParseFiles(files, where + ".files", execution));
  ALLO_RETURN_IF_ERROR(CheckTaskFiles(recipe, where));
  return recipe;
}

common::Status ParseTasks(const Json& list, const Json& execution, PrepareRecipe* recipe) {
  if (list.is_null()) return common::Ok();
  std::set<std::string_view> names;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = "run.tasks[" + std::to_string(i) + "]";
    ALLO_ASSIGN_OR_RETURN(TaskRecipe task, ParseTask(list[i], where, execution));
    if (!names.insert(task.task->name()).second)
      return common::InvalidArgument(where + ": task '" + std::string(task.task->name()) + "' is there twice");
    recipe->tasks.push_back(std::move(task));
  }
  return common::Ok();
}

// Tasks alone: `data` is the identity of the text's preparation, whose folder is the input "data".
common::Status TakePreparedText(const Json& tasks, const Json& execution, PrepareRecipe* recipe) {
  const std::string folder = execution.is_object() ? execution.value("data", "") : "";
  if (folder.empty()) return common::NotFound("execution.inputs has no 'data', which run.data names");
  if (tasks.empty()) return common::InvalidArgument("run.tasks is empty: there is nothing to prepare");
  recipe->prepared_text = folder;
  return common::Ok();
}

}  // namespace

int64_t DefaultSampleSentences(int64_t vocabulary) { return std::max<int64_t>(20'000, 4 * vocabulary); }

std::vector<RawFile> PrepareRecipe::AllFiles() const {
  std::vector<RawFile> all = corpus;
  all.insert(all.end(), valid.begin(), valid.end());
  for (const BuiltPart& part : built) all.insert(all.end(), part.files.begin(), part.files.end());
  if (tokenizer) all.push_back(*tokenizer);
  for (const TaskRecipe& task : tasks) all.insert(all.end(), task.files.begin(), task.files.end());
  std::set<std::string> seen;
  std::erase_if(all, [&](const RawFile& f) { return !seen.insert(f.sha256).second; });
  return all;
}

common::Result<PrepareRecipe> ParsePrepare(const Json& run, const Json& execution) {
  ObjectReader reader(run, "run");
  PrepareRecipe recipe;
  reader.Choice("kind", "prepare", {"prepare"});
  reader.Choice("trainer", "builtin", {"builtin"});
  const bool tasks_alone = reader.Has("data");
  if (tasks_alone) reader.String("data", std::nullopt);
  const Json& corpus = tasks_alone ? Json() : reader.Raw("corpus", true, "object");
  const Json& tokenizer = tasks_alone ? Json() : reader.Raw("tokenizer", false, "object");
  const Json& tasks = reader.Raw("tasks", false, "array");
  recipe.seed = static_cast<uint64_t>(reader.Integer("seed", 0, 0, kUnbounded));
  recipe.shard_tokens = reader.Integer("shard_tokens", kDefaultShardTokens, 1, kUnbounded);
  reader.Integer("numerics_version", kDataNumericsVersion, kDataNumericsVersion, kDataNumericsVersion);
  reader.Ignore("identity_version");
  ALLO_RETURN_IF_ERROR(reader.Finish());
  if (tasks_alone) {
    ALLO_RETURN_IF_ERROR(TakePreparedText(tasks, execution, &recipe));
  } else {
    ALLO_RETURN_IF_ERROR(ParseCorpus(corpus, execution, &recipe));
    ALLO_RETURN_IF_ERROR(ParseTokenizer(tokenizer.is_null() ? Json::object() : tokenizer, execution, &recipe));
  }
  ALLO_RETURN_IF_ERROR(ParseTasks(tasks, execution, &recipe));
  if (execution.is_object() && execution.contains("threads") && execution["threads"].is_number_integer())
    recipe.threads = std::clamp<int64_t>(execution["threads"].get<int64_t>(), 1, 1'024);
  recipe.verified = execution.is_object() && execution.value("verified", false);
  return recipe;
}

}  // namespace allometry::trainer
