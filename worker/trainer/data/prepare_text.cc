#include "worker/trainer/data/prepare_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <thread>
#include <unordered_set>

#include "common/sha256.h"
#include "worker/trainer/data/span_corruption.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kDocumentsPerReport = 512;
constexpr size_t kBatchBytes = 1 << 20;  // of text, a thread

// The first 128 bits of a document's SHA-256.
struct Fingerprint {
  uint64_t high = 0, low = 0;
  bool operator==(const Fingerprint&) const = default;
};

struct FingerprintHash {
  size_t operator()(const Fingerprint& f) const { return f.low; }
};

Fingerprint FingerprintOf(std::string_view document) {
  const std::string hex = common::Sha256Hex(document);
  Fingerprint f;
  std::from_chars(hex.data(), hex.data() + 16, f.high, 16);
  std::from_chars(hex.data() + 16, hex.data() + 32, f.low, 16);
  return f;
}

common::Error Stopped() { return common::Aborted("stopped on request"); }

// Collects documents and encodes them together, each thread a contiguous part.
class BatchEncoder {
 public:
  BatchEncoder(const Tokenizer& tokenizer, int64_t threads)
      : tokenizer_(tokenizer), threads_(static_cast<size_t>(threads)) {}

  void Add(std::string_view document, Side side) {
    texts_.emplace_back(document);
    sides_.push_back(side);
    bytes_ += document.size();
  }
  bool Full() const { return bytes_ >= kBatchBytes * threads_; }

  // Encodes what was added and hands it over in order.
  template <typename Sink>
  common::Status Flush(const Sink& sink) {
    ids_.assign(texts_.size(), {});
    const size_t workers = std::min(threads_, texts_.size());
    std::vector<std::jthread> running;
    for (size_t w = 1; w < workers; ++w) running.emplace_back([this, w, workers] { Encode(w, workers); });
    if (workers > 0) Encode(0, workers);
    running.clear();  // joins
    for (size_t i = 0; i < ids_.size(); ++i) ALLO_RETURN_IF_ERROR(sink(ids_[i], sides_[i]));
    texts_.clear();
    sides_.clear();
    bytes_ = 0;
    return common::Ok();
  }

 private:
  void Encode(size_t worker, size_t workers) {
    for (size_t i = worker; i < texts_.size(); i += workers) {
      tokenizer_.Encode(texts_[i], &ids_[i]);
      ids_[i].push_back(kEos);
    }
  }
  const Tokenizer& tokenizer_;
  const size_t threads_;
  std::vector<std::string> texts_;
  std::vector<Side> sides_;
  std::vector<std::vector<int32_t>> ids_;
  size_t bytes_ = 0;
};

// Counts and writes encoded documents.
class PartWriter {
 public:
  PartWriter(TokenFileWriter train, TokenFileWriter valid, int64_t vocabulary)
      : train_(std::move(train)), valid_(std::move(valid)) {
    text_.train_counts.resize(static_cast<size_t>(vocabulary));
  }
  common::Status Write(const std::vector<int32_t>& ids, Side side) {
    TokenizedPart& part = side == Side::kTrain ? text_.train : text_.valid;
    ++part.documents;
    part.tokens += static_cast<int64_t>(ids.size());
    part.unknown += std::ranges::count(ids, kUnknown);
    if (side == Side::kTrain)
      for (int32_t id : ids) ++text_.train_counts[static_cast<size_t>(id)];
    return (side == Side::kTrain ? train_ : valid_).Append(ids);
  }
  common::Result<TokenizedText> Finish() {
    ALLO_RETURN_IF_ERROR(train_.Finish());
    ALLO_RETURN_IF_ERROR(valid_.Finish());
    return text_;
  }

 private:
  TokenFileWriter train_, valid_;
  TokenizedText text_;
};

common::Status CheckSurvey(const TextSurvey& survey, double fraction) {
  if (survey.train_documents + survey.valid_documents == 0)
    return common::DataLoss("there is no text in the corpus: the files are empty or hold only blanks");
  const char* empty = survey.valid_documents == 0 ? "validation" : survey.train_documents == 0 ? "training" : nullptr;
  if (!empty) return common::Ok();
  return common::DataLoss("the " + std::string(empty) + " part is empty: the corpus has " +
                          std::to_string(survey.train_documents + survey.valid_documents) +
                          " different documents and validation_fraction is " + std::to_string(fraction) +
                          "; change the fraction, bring more text, or make documents smaller (document: line)");
}

}  // namespace

common::Status ReadCorpus(const PrepareRecipe& recipe, const DocumentSink& sink, CorpusCounts* counts,
                          const TextProgress& progress) {
  int64_t before = 0, until_report = kDocumentsPerReport;
  const DocumentSink reporting = [&](std::string_view document) -> common::Status {
    if (--until_report <= 0) {
      until_report = kDocumentsPerReport;
      if (!progress(before + counts->file_bytes)) return Stopped();
    }
    return sink(document);
  };
  if (recipe.format == CorpusFormat::kGcide)
    return ReadDictionary(recipe.corpus[0].path, recipe.corpus[1].path, reporting, counts);
  for (const RawFile& file : recipe.corpus) {
    ALLO_RETURN_IF_ERROR(ReadTextFile(file.path, recipe.document, reporting, counts));
    before += counts->file_bytes;
    counts->file_bytes = 0;
    if (!progress(before)) return Stopped();
  }
  return common::Ok();
}

common::Result<TextSurvey> SurveyText(const PrepareRecipe& recipe, SentenceSample* sample,
                                      const TextProgress& progress) {
  TextSurvey survey;
  std::unordered_set<Fingerprint, FingerprintHash> seen;
  const DocumentSink sink = [&](std::string_view document) {
    const Fingerprint print = FingerprintOf(document);
    Side side = Side::kDuplicate;
    if (seen.insert(print).second) {
      const double place = static_cast<double>(print.high >> 11) * 0x1p-53;  // uniform in [0, 1)
      side = place < recipe.validation_fraction ? Side::kValid : Side::kTrain;
    }
    survey.sides.push_back(side);
    ++(side == Side::kTrain   ? survey.train_documents
       : side == Side::kValid ? survey.valid_documents
                              : survey.duplicates);
    if (side == Side::kTrain && sample) sample->Add(document);
    return common::Ok();
  };
  ALLO_RETURN_IF_ERROR(ReadCorpus(recipe, sink, &survey.counts, progress));
  ALLO_RETURN_IF_ERROR(CheckSurvey(survey, recipe.validation_fraction));
  return survey;
}

common::Result<TokenizedText> TokenizeText(const PrepareRecipe& recipe, const TextSurvey& survey,
                                           const Tokenizer& tokenizer, const std::filesystem::path& folder,
                                           const TextProgress& progress) {
  const int token_bytes = TokenBytes(tokenizer.vocabulary());
  ALLO_ASSIGN_OR_RETURN(TokenFileWriter train, TokenFileWriter::Create(folder / "train", token_bytes));
  ALLO_ASSIGN_OR_RETURN(TokenFileWriter valid, TokenFileWriter::Create(folder / "valid", token_bytes));
  PartWriter writer(std::move(train), std::move(valid), tokenizer.vocabulary());
  BatchEncoder encoder(tokenizer, recipe.threads);
  const auto write = [&](const std::vector<int32_t>& ids, Side side) { return writer.Write(ids, side); };
  size_t next = 0;
  const DocumentSink sink = [&](std::string_view document) -> common::Status {
    if (next >= survey.sides.size()) return common::DataLoss("the corpus changed while it was being read");
    const Side side = survey.sides[next++];
    if (side != Side::kDuplicate) encoder.Add(document, side);
    return encoder.Full() ? encoder.Flush(write) : common::Ok();
  };
  CorpusCounts counts;
  ALLO_RETURN_IF_ERROR(ReadCorpus(recipe, sink, &counts, progress));
  ALLO_RETURN_IF_ERROR(encoder.Flush(write));
  return writer.Finish();
}

}  // namespace allometry::trainer
