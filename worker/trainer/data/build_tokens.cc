#include "worker/trainer/data/build_tokens.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "common/fault_point.h"
#include "worker/trainer/data/span_corruption.h"
#include "worker/trainer/data/token_file.h"

namespace allometry::trainer {
namespace {

using common::Json;

constexpr char kStage[] = "tokenize";
constexpr size_t kBatchBytes = 256 << 10;  // of text
constexpr size_t kWaitingBytes = 1 << 20;  // of text that is read and not written, a thread
constexpr int64_t kTokensBetweenSaves = 16'000'000;

// Documents that one thread encodes together.
struct Batch {
  std::string text;          // of all documents, one after the other
  std::vector<size_t> ends;  // of each in the text
  std::vector<Side> sides;
  int64_t next_document = 0;  // of the corpus, behind the last
  std::vector<int32_t> ids;
  std::vector<size_t> id_ends;
  bool encoded = false;
};

// A queue of batches that threads encode and that come out in the order in which they went in. Push and Pop are for one
// thread; what waits in between is bounded by it (waiting_bytes). An exception of an encoding thread comes out of Pop.
class EncodingQueue {
 public:
  EncodingQueue(const Tokenizer& tokenizer, int64_t threads) : tokenizer_(tokenizer) {
    for (int64_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  }
  ~EncodingQueue() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    threads_.clear();  // joins
  }

  void Push(Batch batch) {
    waiting_bytes_ += batch.text.size();
    {
      const std::lock_guard lock(mutex_);
      batches_.push_back(std::move(batch));
    }
    changed_.notify_all();
  }

  // Whether a batch is encoded; with `wait`, waits for it. There must be one.
  bool Ready(bool wait) {
    std::unique_lock lock(mutex_);
    if (wait) changed_.wait(lock, [this] { return batches_.front().encoded || failure_; });
    if (failure_) std::rethrow_exception(failure_);
    return batches_.front().encoded;
  }

  Batch Pop() {
    const std::lock_guard lock(mutex_);
    Batch batch = std::move(batches_.front());
    batches_.pop_front();
    --taken_;
    waiting_bytes_ -= batch.text.size();
    return batch;
  }

  bool empty() const { return waiting_bytes_ == 0; }
  size_t waiting_bytes() const { return waiting_bytes_; }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ending_ || taken_ < batches_.size(); });
      if (ending_) return;
      Batch& batch = batches_[taken_++];  // a deque's elements stay where they are
      lock.unlock();
      std::exception_ptr failure;
      try {
        Encode(&batch);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      batch.encoded = true;
      if (failure) failure_ = failure;
      changed_.notify_all();
    }
  }

  void Encode(Batch* batch) const {
    size_t begin = 0;
    for (size_t end : batch->ends) {
      tokenizer_.Encode(std::string_view(batch->text).substr(begin, end - begin), &batch->ids);
      batch->ids.push_back(kEos);
      batch->id_ends.push_back(batch->ids.size());
      begin = end;
    }
  }

  const Tokenizer& tokenizer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> batches_;
  size_t taken_ = 0;  // of batches_, by encoding threads
  bool ending_ = false;
  std::exception_ptr failure_;
  size_t waiting_bytes_ = 0;  // of the caller's thread
  std::vector<std::jthread> threads_;
};

// One side's shards and what was counted in them.
class SideWriter {
 public:
  static common::Result<SideWriter> Open(const std::filesystem::path& stem, int token_bytes, int64_t shard_tokens,
                                         const Json& saved) {
    const auto at = [&](const char* key) { return saved.is_null() ? 0 : saved.at(key).get<int64_t>(); };
    ALLO_ASSIGN_OR_RETURN(TokenShardWriter shards,
                          TokenShardWriter::Open(stem, token_bytes, shard_tokens,
                                                 {at("shard"), at("documents"), at("tokens"), at("documents_before"),
                                                  at("tokens_before")}));
    return SideWriter(std::move(shards), at("unknown"));
  }

  common::Status Append(std::span<const int32_t> document) {
    unknown_ += std::ranges::count(document, kUnknown);
    return shards_.Append(document);
  }
  common::Status Sync() { return shards_.Sync(); }
  common::Status Finish() { return shards_.Finish(); }

  Json Saved() const {
    const TokenShardWriter::Position p = shards_.position();
    return {{"shard", p.shard},
            {"documents", p.documents},
            {"tokens", p.tokens},
            {"documents_before", p.documents_before},
            {"tokens_before", p.tokens_before},
            {"unknown", unknown_}};
  }
  TokenizedPart part() const { return {shards_.documents(), shards_.tokens(), unknown_, shards_.shards()}; }
  int64_t tokens() const { return shards_.tokens(); }

 private:
  SideWriter(TokenShardWriter shards, int64_t unknown) : shards_(std::move(shards)), unknown_(unknown) {}
  TokenShardWriter shards_;
  int64_t unknown_;
};

// Counts and writes encoded documents, and remembers on the disk how far it is.
class TextWriter {
 public:
  static common::Result<TextWriter> Open(const PrepareRecipe& recipe, int64_t vocabulary, BuildState* state) {
    const Json* saved = state->Find(kStage);
    const auto side = [&](const char* name) {
      return SideWriter::Open(state->data() / name, TokenBytes(vocabulary), recipe.shard_tokens,
                              saved ? saved->at(name) : Json());
    };
    ALLO_ASSIGN_OR_RETURN(SideWriter train, side("train"));
    ALLO_ASSIGN_OR_RETURN(SideWriter valid, side("valid"));
    TextWriter writer(std::move(train), std::move(valid), std::min(recipe.shard_tokens, kTokensBetweenSaves), state);
    writer.counts_.resize(static_cast<size_t>(vocabulary));
    if (saved) writer.counts_ = saved->at("train_counts").get<std::vector<uint64_t>>();
    if (saved) writer.next_document_ = saved->at("next_document").get<int64_t>();
    return writer;
  }

  // The first document that has not been written.
  int64_t next_document() const { return next_document_; }
  int64_t tokens() const { return train_.tokens() + valid_.tokens(); }

  common::Status Write(const Batch& batch) {
    size_t begin = 0;
    for (size_t i = 0; i < batch.sides.size(); ++i) {
      const std::span<const int32_t> ids = std::span(batch.ids).subspan(begin, batch.id_ends[i] - begin);
      begin = batch.id_ends[i];
      const bool train = batch.sides[i] == Side::kTrain;
      if (train)
        for (int32_t id : ids) ++counts_[static_cast<size_t>(id)];
      ALLO_RETURN_IF_ERROR((train ? train_ : valid_).Append(ids));
    }
    next_document_ = batch.next_document;
    common::FaultPoint("trainer.data_batch");
    return tokens() < next_save_ ? common::Ok() : Save();
  }

  common::Result<TokenizedText> Finish() {
    ALLO_RETURN_IF_ERROR(train_.Finish());
    ALLO_RETURN_IF_ERROR(valid_.Finish());
    return TokenizedText{train_.part(), valid_.part(), counts_};
  }

 private:
  TextWriter(SideWriter train, SideWriter valid, int64_t tokens_between_saves, BuildState* state)
      : train_(std::move(train)), valid_(std::move(valid)), tokens_between_saves_(tokens_between_saves), state_(state) {
    next_save_ = tokens() + tokens_between_saves_;
  }

  common::Status Save() {
    next_save_ = tokens() + tokens_between_saves_;
    ALLO_RETURN_IF_ERROR(train_.Sync());
    ALLO_RETURN_IF_ERROR(valid_.Sync());
    return state_->Save(kStage, {{"next_document", next_document_},
                                 {"train", train_.Saved()},
                                 {"valid", valid_.Saved()},
                                 {"train_counts", counts_}});
  }

  SideWriter train_, valid_;
  const int64_t tokens_between_saves_;
  BuildState* state_;
  std::vector<uint64_t> counts_;
  int64_t next_document_ = 0, next_save_ = 0;
};

// Reads, hands documents to the threads, and writes what comes back.
class Tokenizing {
 public:
  Tokenizing(const Tokenizer& tokenizer, int64_t threads, TextWriter* writer)
      : queue_(tokenizer, threads), most_waiting_(kWaitingBytes * static_cast<size_t>(threads)), writer_(writer) {}

  common::Status Add(std::string_view document, Side side, int64_t number) {
    batch_.next_document = number + 1;
    if (side == Side::kDuplicate) return common::Ok();
    batch_.text += document;
    batch_.ends.push_back(batch_.text.size());
    batch_.sides.push_back(side);
    return batch_.text.size() < kBatchBytes ? common::Ok() : Push();
  }

  common::Status Finish() {
    if (!batch_.text.empty()) ALLO_RETURN_IF_ERROR(Push());
    while (!queue_.empty()) ALLO_RETURN_IF_ERROR(WriteFirst());
    return common::Ok();
  }

 private:
  common::Status Push() {
    queue_.Push(std::exchange(batch_, {}));
    while (queue_.waiting_bytes() > most_waiting_) ALLO_RETURN_IF_ERROR(WriteFirst());
    while (!queue_.empty() && queue_.Ready(/*wait=*/false)) ALLO_RETURN_IF_ERROR(writer_->Write(queue_.Pop()));
    return common::Ok();
  }
  common::Status WriteFirst() {
    queue_.Ready(/*wait=*/true);
    return writer_->Write(queue_.Pop());
  }

  EncodingQueue queue_;
  const size_t most_waiting_;
  TextWriter* writer_;
  Batch batch_;
};

}  // namespace

common::Result<TokenizedText> TokenizeText(const PrepareRecipe& recipe, const TextSurvey& survey,
                                           const Tokenizer& tokenizer, BuildState* state,
                                           const PassCallback& progress) {
  ALLO_ASSIGN_OR_RETURN(TextWriter writer, TextWriter::Open(recipe, tokenizer.vocabulary(), state));
  const int64_t tokens_before = writer.tokens();
  const PassCallback with_tokens = [&](PassProgress p) {
    p.tokens = writer.tokens() - tokens_before;
    return progress(p);
  };
  Tokenizing tokenizing(tokenizer, recipe.threads, &writer);
  const SurveyedSink sink = [&](std::string_view document, Side side, int64_t number) {
    return tokenizing.Add(document, side, number);
  };
  ALLO_RETURN_IF_ERROR(ReadSurveyed(recipe, survey, writer.next_document(), sink, with_tokens));
  ALLO_RETURN_IF_ERROR(tokenizing.Finish());
  return writer.Finish();
}

}  // namespace allometry::trainer
