#include "worker/trainer/data/prepare_tasks.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "common/files.h"
#include "worker/trainer/data/permutation.h"
#include "worker/trainer/data/random.h"
#include "worker/trainer/data/span_corruption.h"
#include "worker/trainer/data/token_file.h"
#include "worker/trainer/tasks/task_data.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

constexpr uint64_t kShuffleKey = 0x73687566;

void KeepFirst(std::vector<TaskExample>* split, int64_t most) {
  if (most > 0 && static_cast<int64_t>(split->size()) > most) split->resize(static_cast<size_t>(most));
}

void ShuffleAnswers(uint64_t key, std::vector<TaskExample>* train) {
  const Permutation order(train->size(), key);
  std::vector<std::pair<int32_t, std::string>> answers;
  for (size_t i = 0; i < train->size(); ++i) answers.emplace_back((*train)[order(i)].label, (*train)[order(i)].target);
  for (size_t i = 0; i < train->size(); ++i) std::tie((*train)[i].label, (*train)[i].target) = std::move(answers[i]);
}

// One task on its way to the disk.
class TaskWriter {
 public:
  TaskWriter(const Task& task, const Tokenizer& tokenizer, fs::path folder)
      : task_(task), tokenizer_(tokenizer), folder_(std::move(folder)) {}

  // Texts and ids of the labels; an answer that the tokenizer cannot spell can never be right.
  common::Result<Json> Labels() {
    Json labels = Json::array();
    for (std::string_view label : task_.labels()) {
      const std::vector<int32_t> tokens = Encode(label);
      if (!tokenizer_.CanSpell(label))
        return common::InvalidArgument("the tokenizer cannot spell the label '" + std::string(label) + "' of task '" +
                                       std::string(task_.name()) + "': give another tokenizer");
      longest_target_ = std::max(longest_target_, static_cast<int64_t>(tokens.size()));
      labels.push_back({{"text", label}, {"tokens", tokens}});
    }
    return labels;
  }

  common::Result<Json> WriteSplit(std::string_view split, const std::vector<TaskExample>& examples) const {
    ALLO_ASSIGN_OR_RETURN(TokenFileWriter writer, Writer(split));
    std::vector<int32_t> labels;
    std::string facts;
    int64_t longest = 0, unknown = 0;
    for (const TaskExample& example : examples) {
      const std::vector<int32_t> ids = Encode(example.input);
      longest = std::max(longest, static_cast<int64_t>(ids.size()));
      unknown += std::ranges::count(ids, kUnknown);
      labels.push_back(example.label);
      facts += FactsLine(example);
      ALLO_RETURN_IF_ERROR(writer.Append(ids));
    }
    ALLO_RETURN_IF_ERROR(writer.Finish());
    const std::string stem = Stem(split);
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(
        stem + ".labels", {reinterpret_cast<const char*>(labels.data()), labels.size() * sizeof(int32_t)}));
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(stem + ".examples", facts));
    return Json{{"examples", examples.size()},
                {"tokens", writer.tokens()},
                {"longest_input", longest},
                {"unknown_tokens", unknown}};
  }

  // The answers that are trained on, of a task with free text. One that the tokenizer does not give back as it was can
  // never be written exactly: counted.
  common::Status WriteTargets(const std::vector<TaskExample>& train, Json* entry) {
    ALLO_ASSIGN_OR_RETURN(TokenFileWriter writer, Writer("targets"));
    int64_t with_unknown = 0, changed = 0;
    for (const TaskExample& example : train) {
      const std::vector<int32_t> ids = Encode(example.target);
      with_unknown += std::ranges::count(ids, kUnknown) > 0;
      changed += tokenizer_.Decode(ids) != example.target;
      longest_target_ = std::max(longest_target_, static_cast<int64_t>(ids.size()));
      ALLO_RETURN_IF_ERROR(writer.Append(ids));
    }
    ALLO_RETURN_IF_ERROR(writer.Finish());
    (*entry)["targets_with_unknown"] = with_unknown;
    (*entry)["targets_changed_by_tokenizer"] = changed;
    return common::Ok();
  }

  int64_t longest_target() const { return longest_target_; }

 private:
  std::string Stem(std::string_view split) const {
    return (folder_ / "tasks" / task_.name()).string() + "." + std::string(split);
  }
  common::Result<TokenFileWriter> Writer(std::string_view split) const {
    return TokenFileWriter::Create(Stem(split), TokenBytes(tokenizer_.vocabulary()));
  }
  std::vector<int32_t> Encode(std::string_view text) const {
    std::vector<int32_t> ids = tokenizer_.Encode(text);
    ids.push_back(kEos);
    return ids;
  }
  static std::string FactsLine(const TaskExample& example) {
    const ExampleFacts facts{example.id,    example.references, example.choices,
                             example.value, example.question,   example.passage};
    return facts.ToJson().dump() + "\n";
  }

  const Task& task_;
  const Tokenizer& tokenizer_;
  const fs::path folder_;
  int64_t longest_target_ = 0;
};

common::Status CheckNotEmpty(const Task& task, std::string_view split, const std::vector<TaskExample>& examples) {
  if (!examples.empty()) return common::Ok();
  return common::DataLoss("task '" + std::string(task.name()) + "' has no examples in its " +
                          (split == "train"   ? "training"
                           : split == "valid" ? "validation"
                                              : std::string(split)) +
                          " part");
}

}  // namespace

common::Result<Json> PrepareTask(const TaskRecipe& recipe, size_t number, uint64_t seed, const Tokenizer& tokenizer,
                                 const fs::path& folder) {
  const Task& task = *recipe.task;
  std::map<std::string, fs::path> files;
  for (const RawFile& file : recipe.files) files[file.name] = file.path;
  ALLO_ASSIGN_OR_RETURN(TaskExamples examples, task.Read(files, recipe.bad_rows));
  KeepFirst(&examples.train, recipe.max_train);
  std::vector<std::vector<TaskExample>> valid = std::move(examples.other_valid);
  valid.insert(valid.begin(), std::move(examples.valid));
  if (recipe.shuffle_labels) ShuffleAnswers(Mix64(Mix64(seed ^ kShuffleKey) ^ number), &examples.train);

  TaskWriter writer(task, tokenizer, folder);
  Json entry{{"name", task.name()},
             {"benchmark", task.benchmark()},
             {"in_average", task.in_average()},
             {"answer", NameOf(task.answer())},
             {"metrics", task.metrics()},
             {"valid_splits", task.valid_splits()},
             {"numerics_version", task.numerics_version()},
             {"shuffled_labels", recipe.shuffle_labels},
             {"counts", examples.counts}};
  ALLO_ASSIGN_OR_RETURN(entry["labels"], writer.Labels());
  ALLO_RETURN_IF_ERROR(CheckNotEmpty(task, "train", examples.train));
  ALLO_ASSIGN_OR_RETURN(entry["train"], writer.WriteSplit("train", examples.train));
  for (size_t i = 0; i < valid.size(); ++i) {
    const std::string split(task.valid_splits()[i]);
    KeepFirst(&valid[i], recipe.max_valid);
    ALLO_RETURN_IF_ERROR(CheckNotEmpty(task, split, valid[i]));
    ALLO_ASSIGN_OR_RETURN(entry[split], writer.WriteSplit(split, valid[i]));
  }
  if (task.labels().empty()) ALLO_RETURN_IF_ERROR(writer.WriteTargets(examples.train, &entry));
  entry["longest_target"] = writer.longest_target();
  return entry;
}

}  // namespace allometry::trainer
