#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "common/result.h"

// Readers of raw text. Each hands over documents one at a time, as UTF-8 with white space collapsed to single blanks;
// memory is bounded by the longest document (GCIDE: by the dictionary, 40 MB).
namespace allometry::trainer {

struct CorpusCounts {
  int64_t documents = 0;
  int64_t words = 0;           // separated by blanks
  int64_t replaced_lines = 0;  // lines with bytes that are not UTF-8, each such byte replaced by U+FFFD
  int64_t cut_documents = 0;   // longer than 64 MiB, and cut there
  int64_t file_bytes = 0;      // how far the current file has been read, as it lies on the disk
};

// Called once a document, never with an empty one. An error stops the reading and is returned from it.
using DocumentSink = std::function<common::Status(std::string_view document)>;

// What one document of a text file is: separated by blank lines, a line, or the whole file.
enum class DocumentRule { kParagraph, kLine, kFile };
common::Result<DocumentRule> ParseDocumentRule(std::string_view name);  // "paragraph", "line", "file"

// Plain text, or gzip, xz or Zstandard of it (told by content, not by name). kNotFound or kPermissionDenied: cannot be
// opened; kDataLoss: damaged compression.
common::Status ReadTextFile(const std::filesystem::path& path, DocumentRule rule, const DocumentSink& sink,
                            CorpusCounts* counts);

// The definitions of a dictionary in dictd's format (RFC 2229's database: a .dict.dz, which gzip reads, and a .index of
// headword, offset and length in base 64), as GCIDE is packaged. Entries about the database itself are left out,
// entries under several headwords come once, each cleaned by EntryAsProse. kDataLoss: the index does not fit the
// dictionary.
common::Status ReadDictionary(const std::filesystem::path& dict_dz, const std::filesystem::path& index,
                              const DocumentSink& sink, CorpusCounts* counts);

// The line as valid UTF-8, by RFC 3629: every byte that is not part of a well-formed sequence becomes U+FFFD. Sets
// *replaced when that happened.
std::string ValidUtf8(std::string_view line, bool* replaced);

}  // namespace allometry::trainer
