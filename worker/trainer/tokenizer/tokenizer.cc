#include "worker/trainer/tokenizer/tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "common/files.h"
#include "worker/trainer/data/random.h"
#include "worker/trainer/data/span_corruption.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kSmallestVocabulary = 164, kLargestVocabulary = 1'000'000;
constexpr size_t kMaxSentenceBytes = 2'000;

common::Status CheckVocabulary(int64_t vocabulary) {
  if (vocabulary >= kSmallestVocabulary && vocabulary <= kLargestVocabulary) return common::Ok();
  return common::InvalidArgument("a tokenizer's vocabulary is " + std::to_string(vocabulary) + ", and must be from " +
                                 std::to_string(kSmallestVocabulary) + " to " + std::to_string(kLargestVocabulary) +
                                 " (100 sentinels included)");
}

// Candidates that training begins with. SentencePiece's own million makes small vocabularies slower and no better
// (GCIDE at 2,048: 1 % more tokens).
int64_t SeedPieces(int64_t vocabulary) { return std::clamp<int64_t>(10 * vocabulary, 20'000, 1'000'000); }

// Where to cut a text of more than the largest sentence: after the last blank, else between two characters.
size_t CutPoint(std::string_view text) {
  const size_t blank = text.substr(0, kMaxSentenceBytes).rfind(' ');
  if (blank != text.npos && blank > 0) return blank;
  size_t cut = kMaxSentenceBytes;
  while (cut > 1 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return cut;
}

}  // namespace

common::Result<Tokenizer> Tokenizer::FromBytes(const std::string& model, int64_t vocabulary, const std::string& where) {
  ALLO_RETURN_IF_ERROR(CheckVocabulary(vocabulary));
  ALLO_ASSIGN_OR_RETURN(const PieceLibrary* library, LoadPieceLibrary());
  Tokenizer tokenizer;
  tokenizer.model_ = library->Load(model);
  if (!tokenizer.model_) return common::DataLoss(where + ": not a SentencePiece model");
  const PieceModel& p = *tokenizer.model_;
  if (p.pad_id() != kPad || p.eos_id() != kEos || p.unk_id() != kUnknown)
    return common::InvalidArgument(
        where + ": pad, eos and unk have the ids " + std::to_string(p.pad_id()) + ", " + std::to_string(p.eos_id()) +
        ", " + std::to_string(p.unk_id()) +
        "; they must be 0, 1, 2 (train it with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1)");
  tokenizer.pieces_ = p.pieces();
  tokenizer.vocabulary_ = vocabulary;
  if (tokenizer.pieces_ + kSentinels > vocabulary)
    return common::InvalidArgument(where + ": " + std::to_string(tokenizer.pieces_) +
                                   " pieces and 100 sentinels do not fit a vocabulary of " +
                                   std::to_string(vocabulary) + "; set vocabulary to " +
                                   std::to_string(tokenizer.pieces_ + kSentinels) + " or more");
  return tokenizer;
}

common::Result<Tokenizer> Tokenizer::Load(const std::filesystem::path& path, int64_t vocabulary) {
  ALLO_ASSIGN_OR_RETURN(const std::string model, common::ReadFile(path));
  return FromBytes(model, vocabulary, path.string());
}

int32_t Tokenizer::Sentinel(int64_t i) const { return static_cast<int32_t>(pieces_ + kSentinels - 1 - i); }
bool Tokenizer::IsSentinel(int64_t id) const { return id >= pieces_ && id < pieces_ + kSentinels; }
bool Tokenizer::IsText(int64_t id) const { return id > kEos && id < pieces_; }

void Tokenizer::Encode(std::string_view text, std::vector<int32_t>* ids) const {
  static_assert(sizeof(int) == sizeof(int32_t));
  const std::vector<int> encoded = model_->Encode(text);
  ids->insert(ids->end(), encoded.begin(), encoded.end());
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const { return model_->Encode(text); }

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string text;
  std::vector<int> run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (!text.empty()) text += ' ';
    text += model_->Decode(run);
    run.clear();
  };
  for (int32_t id : ids) {
    if (id == kEos) break;
    if (id == kPad) continue;
    if (IsSentinel(id)) {
      flush();
      if (!text.empty()) text += ' ';
      text += "<extra_id_" + std::to_string(pieces_ + kSentinels - 1 - id) + ">";
    } else {
      run.push_back(id > 0 && id < pieces_ ? id : kUnknown);
    }
  }
  flush();
  return text;
}

bool Tokenizer::CanSpell(std::string_view text) const {
  const std::vector<int32_t> ids = Encode(text);
  return std::ranges::count(ids, kUnknown) == 0 && Decode(ids) == text;
}

namespace {

common::Result<std::string> TrainWith(const std::vector<std::string>& sentences, int64_t vocabulary,
                                      const std::string& required_characters) {
  const std::string pieces = std::to_string(vocabulary - kSentinels);
  // One thread: the sums of several would depend on how the sentences fall to them.
  std::unordered_map<std::string, std::string> settings = {
      {"model_prefix", ""},   {"model_type", "unigram"},
      {"vocab_size", pieces}, {"pad_id", "0"},
      {"eos_id", "1"},        {"unk_id", "2"},
      {"bos_id", "-1"},       {"num_threads", "1"},
      {"minloglevel", "2"},   {"seed_sentencepiece_size", std::to_string(SeedPieces(vocabulary))}};
  if (!required_characters.empty()) settings["required_chars"] = required_characters;
  ALLO_ASSIGN_OR_RETURN(const PieceLibrary* library, LoadPieceLibrary());
  std::string error;
  std::string model = library->Train(settings, sentences, &error);
  if (!model.empty()) return model;
  return common::DataLoss("the text cannot give a tokenizer of " + pieces +
                          " pieces: lower tokenizer.vocabulary or bring more text (SentencePiece: " + error + ")");
}

}  // namespace

common::Result<std::string> TrainTokenizer(const std::vector<std::string>& sentences, int64_t vocabulary,
                                           const std::vector<std::string>& words) {
  ALLO_RETURN_IF_ERROR(CheckVocabulary(vocabulary));
  if (sentences.empty()) return common::DataLoss("there is no text to train a tokenizer on");
  ALLO_ASSIGN_OR_RETURN(std::string model, TrainWith(sentences, vocabulary, ""));
  ALLO_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::FromBytes(model, vocabulary, "the trained tokenizer"));
  std::string required;
  for (const std::string& word : words)
    if (!tokenizer.CanSpell(word)) required += word;
  std::erase(required, ' ');
  if (required.empty()) return model;
  return TrainWith(sentences, vocabulary, required);
}

void SentenceSample::Add(std::string_view document) {
  while (document.size() > kMaxSentenceBytes) {
    const size_t cut = CutPoint(document);
    AddSentence(document.substr(0, cut));
    document.remove_prefix(cut);
    while (!document.empty() && document.front() == ' ') document.remove_prefix(1);
  }
  if (!document.empty()) AddSentence(document);
}

void SentenceSample::AddSentence(std::string_view sentence) {
  const auto seen = static_cast<uint64_t>(seen_++);
  if (static_cast<int64_t>(sentences_.size()) < capacity_) {
    sentences_.emplace_back(sentence);
    return;
  }
  // A 64-bit draw modulo the count: the bias is below 2^-30 at a billion sentences.
  const uint64_t place = KeyedRandom(seed_, 0, seen).Next() % (seen + 1);
  if (place < static_cast<uint64_t>(capacity_)) sentences_[place] = sentence;
}

}  // namespace allometry::trainer
