#include "coordinator/grid/known_tasks.h"

#include <algorithm>

#include "coordinator/grid/shapes.h"

namespace allometry::coordinator {
namespace {

using Layouts = std::vector<std::vector<std::string_view>>;

KnownData Wordnet(std::string_view name) {
  return {name, "wordnet", "wordnet-base", "/usr/share/wordnet", {{"data.adj", "data.adv", "data.noun", "data.verb"}}};
}
KnownData Glue(std::string_view name, std::string_view folder, Layouts layouts = {{"train.tsv", "dev.tsv"}}) {
  return {name, "glue", "", folder, std::move(layouts)};
}
KnownData SuperGlue(std::string_view name, std::string_view folder) {
  return {name, "superglue", "", folder, {{"train.jsonl", "val.jsonl"}}};
}

std::vector<KnownData> MakeTasks() {
  std::vector<KnownData> tasks{
      Wordnet("wordnet_pos"),
      Wordnet("wordnet_wic"),
      Glue("glue_cola", "CoLA"),
      Glue("glue_sst2", "SST-2"),
      Glue("glue_mrpc", "MRPC",
           {{"train.tsv", "dev.tsv"},
            {"msr_paraphrase_train.txt", "dev_ids.tsv"},
            {"msr_paraphrase_train.txt", "msr_paraphrase_test.txt"}}),
      Glue("glue_qqp", "QQP"),
      Glue("glue_stsb", "STS-B"),
      Glue("glue_mnli", "MNLI", {{"train.tsv", "dev_matched.tsv", "dev_mismatched.tsv"}}),
      Glue("glue_qnli", "QNLI"),
      Glue("glue_rte", "RTE"),
      Glue("glue_wnli", "WNLI"),
      SuperGlue("superglue_boolq", "BoolQ"),
      SuperGlue("superglue_cb", "CB"),
      SuperGlue("superglue_copa", "COPA"),
      SuperGlue("superglue_multirc", "MultiRC"),
      SuperGlue("superglue_record", "ReCoRD"),
      SuperGlue("superglue_rte", "RTE"),
      SuperGlue("superglue_wic", "WiC"),
      SuperGlue("superglue_wsc", "WSC"),
      {"squad", "squad", "", "", {{"train-v1.1.json", "dev-v1.1.json"}}},
  };
  std::ranges::find(tasks, "glue_wnli", &KnownData::name)->in_average = false;
  return tasks;
}

}  // namespace

std::span<const KnownData> KnownCorpora() {
  static const std::vector<KnownData> corpora{
      {"gcide", "", "dict-gcide", "/usr/share/dictd", {{"gcide.dict.dz", "gcide.index"}}},
  };
  return corpora;
}

std::span<const KnownData> KnownTasks() {
  static const std::vector<KnownData> tasks = MakeTasks();
  return tasks;
}

const KnownData* FindKnown(std::span<const KnownData> all, std::string_view name) {
  for (const KnownData& known : all)
    if (known.name == name) return &known;
  return nullptr;
}

std::vector<std::string> NamesOf(std::span<const KnownData> all) {
  std::vector<std::string> names;
  for (const KnownData& known : all) names.emplace_back(known.name);
  return names;
}

bool IsTaskGroup(std::string_view name) { return name == "glue" || name == "superglue"; }

bool IsOwnTask(const v1::TaskSpec& task) { return !task.train().empty() || !task.valid().empty(); }

std::vector<v1::TaskSpec> TasksOf(const v1::SweepSpec& spec) {
  std::vector<v1::TaskSpec> tasks;
  for (const v1::TaskSpec& named : spec.finetuning().tasks()) {
    if (!IsBuiltin(spec) || !IsTaskGroup(named.name())) {
      tasks.push_back(named);
      continue;
    }
    for (const KnownData& known : KnownTasks()) {
      if (known.benchmark != named.name() || !known.in_average) continue;
      v1::TaskSpec& task = tasks.emplace_back(named);
      task.set_name(std::string(known.name));
      if (!named.folder().empty()) task.set_folder(named.folder() + "/" + std::string(known.folder));
    }
  }
  return tasks;
}

}  // namespace allometry::coordinator
