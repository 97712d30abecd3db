// The module that links SentencePiece; see piece_library.h.
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "worker/trainer/tokenizer/piece_library.h"

namespace allometry::trainer {
namespace {

class SentencePieceModel final : public PieceModel {
 public:
  bool Load(const std::string& bytes) {
    return processor_.LoadFromSerializedProto(bytes).ok() && processor_.GetPieceSize() > 0;
  }
  int64_t pieces() const override { return processor_.GetPieceSize(); }
  int pad_id() const override { return processor_.pad_id(); }
  int eos_id() const override { return processor_.eos_id(); }
  int unk_id() const override { return processor_.unk_id(); }
  std::vector<int> Encode(std::string_view text) const override { return processor_.EncodeAsIds(text); }
  std::string Decode(const std::vector<int>& ids) const override { return processor_.DecodeIds(ids); }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

// Feeds sentences to SentencePiece's trainer.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  size_t next_ = 0;
};

class SentencePieceLibrary final : public PieceLibrary {
 public:
  std::unique_ptr<PieceModel> Load(const std::string& bytes) const override {
    auto model = std::make_unique<SentencePieceModel>();
    if (!model->Load(bytes)) return nullptr;
    return model;
  }

  std::string Train(const std::unordered_map<std::string, std::string>& settings,
                    const std::vector<std::string>& sentences, std::string* error) const override {
    Sentences iterator(sentences);
    std::string model;
    const sentencepiece::util::Status status = sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &model);
    if (!status.ok()) model.clear();
    *error = status.ToString();
    return model;
  }
};

}  // namespace
}  // namespace allometry::trainer

extern "C" const allometry::trainer::PieceLibrary* AllometryPieceLibrary() {
  static const allometry::trainer::SentencePieceLibrary library;
  return &library;
}
