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

enum class CorpusFormat { kText, kGcide };

struct TaskRecipe {
  const Task* task = nullptr;            // one of the registry, or `own`
  std::shared_ptr<const Task> own;       // declared in the run
  int64_t max_train = 0, max_valid = 0;  // 0 = all
  bool shuffle_labels = false;
  std::vector<RawFile> files;
};

// run.json of kind "prepare", typed and checked.
struct PrepareRecipe {
  CorpusFormat format = CorpusFormat::kText;
  DocumentRule document = DocumentRule::kParagraph;
  double validation_fraction = 0.01;
  std::vector<RawFile> corpus;
  int64_t vocabulary = 0;
  int64_t sample_sentences = 0;
  std::optional<RawFile> tokenizer;  // absent: one is trained
  std::vector<TaskRecipe> tasks;
  uint64_t seed = 0;
  int64_t threads = 1;

  // Every file that is read, each hash once.
  std::vector<RawFile> AllFiles() const;
};

// kInvalidArgument names the member by its path; kNotFound: execution.files has no path for a hash.
common::Result<PrepareRecipe> ParsePrepare(const common::Json& run, const common::Json& execution);

}  // namespace allometry::trainer
