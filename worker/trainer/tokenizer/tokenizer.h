#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "worker/trainer/tokenizer/piece_library.h"

namespace allometry::trainer {

// A SentencePiece model in T5's layout: pad 0, eos 1, unk 2, no bos; ids pieces() … pieces() + 99 are the sentinels
// (sentinel i is pieces() + 99 - i), ids above, if any, only pad the embedding. Immutable; all const functions are
// thread-safe.
class Tokenizer {
 public:
  // `vocabulary`: rows of the embedding. kInvalidArgument: the layout is another, or pieces + 100 exceed the
  // vocabulary; kDataLoss: not a SentencePiece model; kFailedPrecondition: SentencePiece is not here. `where` (a path
  // or a name) begins the message.
  static common::Result<Tokenizer> FromBytes(const std::string& model, int64_t vocabulary, const std::string& where);
  static common::Result<Tokenizer> Load(const std::filesystem::path& path, int64_t vocabulary);

  int64_t pieces() const { return pieces_; }
  int64_t vocabulary() const { return vocabulary_; }
  int32_t Sentinel(int64_t i) const;
  bool IsSentinel(int64_t id) const;
  // Neither padding, end mark, sentinel nor embedding padding.
  bool IsText(int64_t id) const;

  // Whether the text's ids hold nothing unknown and read as the text does.
  bool CanSpell(std::string_view text) const;

  // Ids of the text, without an end mark. Appends to *ids.
  void Encode(std::string_view text, std::vector<int32_t>* ids) const;
  std::vector<int32_t> Encode(std::string_view text) const;

  // The text of ids: padding is skipped, an end mark ends it, sentinel i reads "<extra_id_i>". Ids that do not exist
  // read as the unknown piece does.
  std::string Decode(std::span<const int32_t> ids) const;

 private:
  Tokenizer() = default;
  std::unique_ptr<PieceModel> model_;
  int64_t pieces_ = 0, vocabulary_ = 0;
};

// Trains a unigram model (Kudo 2018, arXiv 1804.10959) on the sentences and returns its bytes; the same sentences give
// the same bytes. `words`: what the model must be able to spell, whatever the text; where the text alone does not see
// to that, training is done a second time with their characters required. kInvalidArgument: a vocabulary outside [164,
// 1,000,000]; kDataLoss: the text has too few different pieces for it.
common::Result<std::string> TrainTokenizer(const std::vector<std::string>& sentences, int64_t vocabulary,
                                           const std::vector<std::string>& words = {});

// A uniform sample of at most `capacity` sentences of a stream, as a function of the stream and the seed (Vitter's
// algorithm R). Texts are cut at sentence-like lengths of at most 2,000 bytes, at blanks where there are any.
class SentenceSample {
 public:
  SentenceSample(int64_t capacity, uint64_t seed) : capacity_(capacity), seed_(seed) {}
  void Add(std::string_view document);
  const std::vector<std::string>& sentences() const { return sentences_; }
  int64_t seen() const { return seen_; }

 private:
  void AddSentence(std::string_view sentence);
  int64_t capacity_;
  uint64_t seed_;
  int64_t seen_ = 0;
  std::vector<std::string> sentences_;
};

}  // namespace allometry::trainer
