// glue_mrpc: do two sentences say the same? (Dolan and Brockett 2005, the Microsoft Research Paraphrase Corpus)
//   mrpc sentence1: He said so . sentence2: He said it .  ->  equivalent
// GLUE may not ship the corpus, so it lies on disks in one of three ways, tried in this order:
//  - train.tsv and dev.tsv, as GLUE's script writes them;
//  - Microsoft's msr_paraphrase_train.txt and GLUE's dev_ids.tsv, which says what of it is validation;
//  - Microsoft's msr_paraphrase_train.txt and msr_paraphrase_test.txt: the corpus' own test part is validation then,
//    which is not GLUE's; counted as valid_rows_of_msr_paraphrase_test.
#include <array>
#include <unordered_set>

#include "worker/trainer/tasks/glue.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 5> kLayoutFiles = {"train.tsv", "dev.tsv", "msr_paraphrase_train.txt",
                                                          "msr_paraphrase_test.txt", "dev_ids.tsv"};

class GlueMrpc : public GlueTask {
 public:
  using GlueTask::GlueTask;
  std::span<const std::string_view> files() const override { return {}; }
  std::span<const std::string_view> optional_files() const override { return kLayoutFiles; }

  common::Result<TaskExamples> Read(const TaskFiles& files, BadRows bad_rows) const override {
    const auto has = [&](const char* file) { return files.contains(file); };
    if (has("train.tsv") && has("dev.tsv")) return GlueTask::Read(files, bad_rows);
    if (!has("msr_paraphrase_train.txt") || !(has("dev_ids.tsv") || has("msr_paraphrase_test.txt")))
      return common::NotFound(
          "task glue_mrpc needs 'train.tsv' and 'dev.tsv', or 'msr_paraphrase_train.txt' with 'dev_ids.tsv' or "
          "'msr_paraphrase_test.txt'");
    return ReadMicrosoftFiles(files, bad_rows);
  }

 private:
  common::Result<TaskExamples> ReadMicrosoftFiles(const TaskFiles& files, BadRows bad_rows) const {
    TaskExamples examples;
    ALLO_RETURN_IF_ERROR(
        ReadSplit(files, "msr_paraphrase_train.txt", bad_rows, "train", &examples.train, &examples.counts));
    if (files.contains("dev_ids.tsv")) {
      ALLO_RETURN_IF_ERROR(MoveValidation(files, &examples));
      return examples;
    }
    ALLO_RETURN_IF_ERROR(
        ReadSplit(files, "msr_paraphrase_test.txt", bad_rows, "valid", &examples.valid, &examples.counts));
    AddCount(&examples.counts, "valid_rows_of_msr_paraphrase_test", static_cast<int64_t>(examples.valid.size()));
    return examples;
  }

  // The pairs that dev_ids.tsv lists go from training to validation.
  common::Status MoveValidation(const TaskFiles& files, TaskExamples* examples) const {
    ALLO_ASSIGN_OR_RETURN(const std::unordered_set<std::string> ids, ReadIds(files));
    std::unordered_set<std::string> unseen = ids;
    std::vector<TaskExample> train;
    for (TaskExample& example : examples->train) {
      unseen.erase(example.id);
      (ids.contains(example.id) ? examples->valid : train).push_back(std::move(example));
    }
    examples->train = std::move(train);
    AddCount(&examples->counts, "dev_ids_without_a_row", static_cast<int64_t>(unseen.size()));
    return common::Ok();
  }

  common::Result<std::unordered_set<std::string>> ReadIds(const TaskFiles& files) const {
    ALLO_ASSIGN_OR_RETURN(TsvReader reader,
                          TsvReader::Open(files, name(), "dev_ids.tsv", BadRows::kFail, {"first", "second"}));
    std::unordered_set<std::string> ids;
    for (;;) {
      ALLO_ASSIGN_OR_RETURN(const bool more, reader.Next());
      if (!more) return ids;
      ids.insert(std::string(reader.Field(0)) + "-" + std::string(reader.Field(1)));
    }
  }
};

}  // namespace

const Task& GlueMrpcTask() {
  static const GlueMrpc task(GlueDescription{.name = "glue_mrpc",
                                             .prefix = "mrpc",
                                             .fields = {{"sentence1", "#1 String"}, {"sentence2", "#2 String"}},
                                             .label_column = "Quality",
                                             .labels = {"not_equivalent", "equivalent"},
                                             .file_labels = {"0", "1"},
                                             .metrics = {"f1", "accuracy"},
                                             .id_columns = {"#1 ID", "#2 ID"}});
  return task;
}

}  // namespace allometry::trainer
