#include "worker/trainer/data/build_corpus.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDocumentsPerReport = 512;
constexpr int64_t kTextBytesPerReport = 1 << 20;

// Tells how far a pass is, every few documents.
class Reporter {
 public:
  Reporter(const PassCallback& callback, const CorpusCounts& counts, int64_t bytes_before)
      : callback_(callback), counts_(counts), bytes_before_(bytes_before) {}

  common::Status Document() {
    if (--until_ > 0 && counts_.text_bytes < next_text_bytes_) return common::Ok();
    return Tell();
  }
  common::Status EndOfSource(const CorpusSource& source) {
    bytes_before_ += source.file_bytes;
    in_source_ = false;
    const common::Status told = Tell();
    in_source_ = true;
    return told;
  }

 private:
  common::Status Tell() {
    until_ = kDocumentsPerReport;
    next_text_bytes_ = counts_.text_bytes + kTextBytesPerReport;
    const int64_t bytes = bytes_before_ + (in_source_ ? counts_.file_bytes : 0);
    return callback_({bytes, counts_.text_bytes, 0}) ? common::Ok()
                                                     : common::Status(common::Aborted("stopped on request"));
  }
  const PassCallback& callback_;
  const CorpusCounts& counts_;
  int64_t bytes_before_, until_ = kDocumentsPerReport, next_text_bytes_ = kTextBytesPerReport;
  bool in_source_ = true;
};

common::Status ReadSource(const CorpusSource& source, const TextLayout& layout, const DocumentSink& sink,
                          CorpusCounts* counts) {
  if (layout.format == CorpusFormat::kGcide) return ReadDictionary(source.paths[0], source.paths[1], sink, counts);
  return ReadCorpusFile(source.paths[0], layout, sink, counts);
}

}  // namespace

int64_t FileBytes(const fs::path& path) {
  std::error_code ignored;
  const uintmax_t size = fs::file_size(path, ignored);
  return ignored ? 0 : static_cast<int64_t>(size);
}

std::vector<CorpusSource> SourcesOf(const PrepareRecipe& recipe) {
  if (recipe.layout.format == CorpusFormat::kGcide) {
    const fs::path dictionary = recipe.corpus[0].path;
    return {{{dictionary, recipe.corpus[1].path}, false, FileBytes(dictionary)}};
  }
  std::vector<CorpusSource> sources;
  for (const RawFile& file : recipe.valid) sources.push_back({{file.path}, true, FileBytes(file.path)});
  for (const RawFile& file : recipe.corpus) sources.push_back({{file.path}, false, FileBytes(file.path)});
  return sources;
}

common::Status ReadCorpus(const std::vector<CorpusSource>& sources, size_t first, const TextLayout& layout,
                          const CorpusSink& sink, CorpusCounts* counts, const PassCallback& progress) {
  int64_t before = 0;
  for (size_t i = 0; i < first; ++i) before += sources[i].file_bytes;
  Reporter reporter(progress, *counts, before);
  for (size_t i = first; i < sources.size(); ++i) {
    const DocumentSink reporting = [&](std::string_view document) -> common::Status {
      ALLO_RETURN_IF_ERROR(reporter.Document());
      return sink(document, i);
    };
    ALLO_RETURN_IF_ERROR(ReadSource(sources[i], layout, reporting, counts));
    ALLO_RETURN_IF_ERROR(reporter.EndOfSource(sources[i]));
  }
  return common::Ok();
}

}  // namespace allometry::trainer
