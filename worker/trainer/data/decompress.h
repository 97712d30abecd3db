#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "common/result.h"

namespace allometry::trainer {

// Lines are handed over in pieces of at most this size, so that a file without line ends cannot fill the memory.
inline constexpr size_t kMaxLineBytes = 64 << 20;

// The bytes of a file, decompressed if they begin as gzip, xz or Zstandard do (whatever the file's name). Files of
// several members or frames one after the other are read to the end. Streaming, with bounded memory. Not thread-safe.
class TextReader {
 public:
  // kNotFound or kPermissionDenied.
  static common::Result<TextReader> Open(const std::filesystem::path& path);
  TextReader(TextReader&&) noexcept;
  ~TextReader();

  // The next line without its newline (and without a carriage return before it); false at the end. kDataLoss: the
  // compressed data are damaged or cut off.
  common::Result<bool> NextLine(std::string* line);
  // Whether the line read last goes on with the next one, being longer than kMaxLineBytes.
  bool line_cut() const;
  // All that is left.
  common::Result<std::string> ReadAll();

  // Bytes taken from the file so far.
  int64_t file_bytes() const;

 private:
  class Impl;
  explicit TextReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace allometry::trainer
