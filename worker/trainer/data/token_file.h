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
// uint64.

// A memory-mapped pair, read only. Copies share the mapping. Thread-safe.
class TokenFile {
 public:
  TokenFile() = default;
  // `stem`: path without .tokens. `token_bytes`: 2 or 4. kNotFound, kPermissionDenied, or kDataLoss if sizes do not
  // fit.
  static common::Result<TokenFile> Open(const std::filesystem::path& stem, int token_bytes);

  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  // First token of document i; Offset(documents()) = tokens(). The index was checked to ascend.
  int64_t Offset(int64_t i) const { return static_cast<int64_t>(index_[i]); }
  // Copies tokens [first, first + out.size()), which must exist.
  void Read(int64_t first, std::span<int32_t> out) const;
  // Document i, end mark included.
  std::vector<int32_t> Document(int64_t i) const;

 private:
  class Mapping;
  std::shared_ptr<const Mapping> token_map_, index_map_;
  const void* data_ = nullptr;
  const uint64_t* index_ = nullptr;
  int64_t tokens_ = 0, documents_ = 0;
  int token_bytes_ = 2;
};

// Bytes of one id on disk.
inline int TokenBytes(int64_t vocabulary) { return vocabulary <= 65'536 ? 2 : 4; }

// Writes a pair, document by document. Not thread-safe.
class TokenFileWriter {
 public:
  static common::Result<TokenFileWriter> Create(const std::filesystem::path& stem, int token_bytes);
  TokenFileWriter(TokenFileWriter&&) noexcept;
  ~TokenFileWriter();
  common::Status Append(std::span<const int32_t> document);
  // Flushes both files to the disk. Once, at the end.
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

}  // namespace allometry::trainer
