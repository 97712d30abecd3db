#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/corpus.h"
#include "worker/trainer/tasks/task.h"

namespace allometry::trainer {

// A raw file of the manifest and where it lies on this machine.
struct RawFile {
  std::string name;    // without folders
  int64_t bytes = -1;  // -1: the manifest does not say
  std::string sha256;
  std::filesystem::path path;
};

struct TaskRecipe {
  const Task* task = nullptr;            // one of the registry, or `own`
  std::shared_ptr<const Task> own;       // declared in the run
  int64_t max_train = 0, max_valid = 0;  // 0 = all
  bool shuffle_labels = false;
  BadRows bad_rows = BadRows::kFail;
  std::vector<RawFile> files;
};

// A data set that was built before, as a part of this one.
struct BuiltPart {
  std::string name;
  double rate = 1;  // its share of the training sequences, relative to the other parts'
  std::vector<RawFile> files;
};

// Tokens of one shard unless the recipe says otherwise.
inline constexpr int64_t kDefaultShardTokens = 100'000'000;

// run.json of kind "prepare", typed and checked: of text, tasks with it or not, or of tasks for a text that was
// prepared before.
struct PrepareRecipe {
  std::optional<std::filesystem::path> prepared_text;  // there is no corpus then, and the tokenizer is that text's
  TextLayout layout;
  double validation_fraction = 0.01;  // without files of validation
  std::vector<RawFile> corpus, valid;
  std::vector<BuiltPart> built;  // of format kBuilt, which has no corpus: one, or the parts of a mixture
  bool mixture = false;
  int64_t shard_tokens = kDefaultShardTokens;
  int64_t vocabulary = 0;
  int64_t sample_sentences = 0;
  std::optional<RawFile> tokenizer;  // absent: one is trained
  // Benchmarks whose labels a tokenizer that is trained here can write. Of those, not of the tasks themselves, so that
  // another task of a benchmark changes no tokenizer and so no pretraining.
  std::vector<std::string> spells;
  std::vector<TaskRecipe> tasks;
  uint64_t seed = 0;
  int64_t threads = 1;
  bool verified = false;  // whoever named the files has just hashed them

  // Every file that is read, each hash once.
  std::vector<RawFile> AllFiles() const;
};

// Enough sentences for pieces to be counted well, few enough for seconds: training time grows with the sample.
int64_t DefaultSampleSentences(int64_t vocabulary);

// kInvalidArgument names the member by its path; kNotFound: execution.files has no path for a hash.
common::Result<PrepareRecipe> ParsePrepare(const common::Json& run, const common::Json& execution);

}  // namespace allometry::trainer
