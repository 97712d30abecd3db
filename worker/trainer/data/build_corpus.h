#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "worker/trainer/data/corpus.h"
#include "worker/trainer/data/prepare_recipe.h"

namespace allometry::trainer {

// One file of raw text, or a dictionary and its index.
struct CorpusSource {
  std::vector<std::filesystem::path> paths;
  bool validation = false;  // named as validation: all its documents are
  int64_t file_bytes = 0;   // of paths[0], as it lies on the disk
};

// Bytes of a file as it lies on the disk; 0 where that cannot be told, as for progress.
int64_t FileBytes(const std::filesystem::path& path);

// The sources of a recipe in the order in which they are read: those of validation first, so that of equal documents
// theirs counts.
std::vector<CorpusSource> SourcesOf(const PrepareRecipe& recipe);

// How far a pass over the corpus is: bytes of files as they lie on the disk, bytes of text, tokens if it makes any.
struct PassProgress {
  int64_t file_bytes = 0, text_bytes = 0, tokens = 0;
};
// Returns false to stop the pass, which then ends with kAborted.
using PassCallback = std::function<bool(const PassProgress&)>;

// Called once a document; `source` is its place in the list. An error stops the reading and is returned from it.
using CorpusSink = std::function<common::Status(std::string_view document, size_t source)>;

// Reads the sources from number `first` on.
common::Status ReadCorpus(const std::vector<CorpusSource>& sources, size_t first, const TextLayout& layout,
                          const CorpusSink& sink, CorpusCounts* counts, const PassCallback& progress);

}  // namespace allometry::trainer
