#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"

namespace allometry::trainer {

// Token ids on disk: `X.tokens` holds nothing but ids, little-endian, of 2 bytes where the vocabulary allows and 4
// otherwise; `X.index` holds the offset (in tokens) of each document and, last, the number of tokens, as little-endian
// uint64. A large text is several such pairs, its shards: X-00000, X-00001, …, each of whole documents.

// "X-00003" of X.
std::filesystem::path ShardStem(const std::filesystem::path& stem, int64_t shard);

// Memory-mapped pairs one after the other, read only, as if they were one. Copies share the mappings. Thread-safe.
class TokenFile {
 public:
  TokenFile() = default;
  // `stem`: path without .tokens. `token_bytes`: 2 or 4. kNotFound, kPermissionDenied, or kDataLoss if sizes do not
  // fit.
  static common::Result<TokenFile> Open(const std::filesystem::path& stem, int token_bytes);
  // The shards 0 … shards - 1 of the stem.
  static common::Result<TokenFile> OpenShards(const std::filesystem::path& stem, int64_t shards, int token_bytes);

  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  // First token of document i; Offset(documents()) = tokens(). The index was checked to ascend.
  int64_t Offset(int64_t i) const;
  // Copies tokens [first, first + out.size()), which must exist.
  void Read(int64_t first, std::span<int32_t> out) const;
  // Document i, end mark included.
  std::vector<int32_t> Document(int64_t i) const;

 private:
  class Mapping;
  struct Shard {
    std::shared_ptr<const Mapping> token_map, index_map;
    const void* data = nullptr;
    const uint64_t* index = nullptr;
    int64_t first_token = 0, tokens = 0;
    int64_t first_document = 0, documents = 0;
  };
  static common::Result<Shard> OpenShard(const std::filesystem::path& stem, int token_bytes);
  static common::Result<TokenFile> Join(std::vector<Shard> shards, int token_bytes);
  // Tokens [first, first + out.size()) of one shard, counted from its own first.
  void ReadShard(const Shard& shard, int64_t first, std::span<int32_t> out) const;

  std::shared_ptr<const std::vector<Shard>> shards_;
  int64_t tokens_ = 0, documents_ = 0;
  int token_bytes_ = 2;
};

// Bytes of one id on disk.
inline int TokenBytes(int64_t vocabulary) { return vocabulary <= 65'536 ? 2 : 4; }

// Writes a pair, document by document. Not thread-safe. A full disk is kResourceExhausted.
class TokenFileWriter {
 public:
  static common::Result<TokenFileWriter> Create(const std::filesystem::path& stem, int token_bytes);
  // Goes on with a pair that Create began, behind its first `documents` documents of `tokens` tokens; what lies behind
  // them is cut off. kDataLoss: there is less.
  static common::Result<TokenFileWriter> Resume(const std::filesystem::path& stem, int token_bytes, int64_t documents,
                                                int64_t tokens);
  TokenFileWriter(TokenFileWriter&&) noexcept;
  TokenFileWriter& operator=(TokenFileWriter&&) noexcept;
  ~TokenFileWriter();
  common::Status Append(std::span<const int32_t> document);
  // Puts on the disk what was appended.
  common::Status Sync();
  // Completes both files and puts them on the disk. Once, at the end.
  common::Status Finish();
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }

 private:
  TokenFileWriter();
  struct Files;
  std::unique_ptr<Files> files_;
  int token_bytes_ = 2;
  int64_t tokens_ = 0, documents_ = 0;
};

// Writes the shards of a stem: each of at most `shard_tokens` tokens, or of one document that is longer. Not
// thread-safe.
class TokenShardWriter {
 public:
  // Where a text's writing is: in which shard, how far in it, and how much lies in the shards before.
  struct Position {
    int64_t shard = 0, documents = 0, tokens = 0;  // of the open shard
    int64_t documents_before = 0, tokens_before = 0;
  };
  // Begins at a position that the writer had at a Sync.
  static common::Result<TokenShardWriter> Open(const std::filesystem::path& stem, int token_bytes, int64_t shard_tokens,
                                               const Position& from);
  common::Status Append(std::span<const int32_t> document);
  common::Status Sync() { return writer_.Sync(); }
  common::Status Finish() { return writer_.Finish(); }
  Position position() const;
  int64_t shards() const { return shard_ + 1; }  // the open one included
  int64_t tokens() const { return tokens_before_ + writer_.tokens(); }
  int64_t documents() const { return documents_before_ + writer_.documents(); }

 private:
  TokenShardWriter(TokenFileWriter writer, std::filesystem::path stem, int token_bytes, int64_t shard_tokens,
                   const Position& from);
  TokenFileWriter writer_;
  std::filesystem::path stem_;
  int token_bytes_;
  int64_t shard_tokens_, shard_, documents_before_, tokens_before_;
};

}  // namespace allometry::trainer
