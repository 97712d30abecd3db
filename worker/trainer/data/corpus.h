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
  int64_t empty_rows = 0;      // rows and articles whose text is empty: no documents
  int64_t bad_rows = 0;        // left out, where that was asked for
  int64_t damaged_files = 0;   // read as far as they go, where that was asked for
  std::string first_bad;       // the message of the first of either
  int64_t text_bytes = 0;      // of the documents
  int64_t file_bytes = 0;      // how far the current file has been read, as it lies on the disk
};

// Called once a document, never with an empty one. An error stops the reading and is returned from it.
using DocumentSink = std::function<common::Status(std::string_view document)>;

// What one document of a text file is: separated by blank lines, a line, or the whole file.
enum class DocumentRule { kParagraph, kLine, kFile };
common::Result<DocumentRule> ParseDocumentRule(std::string_view name);  // "paragraph", "line", "file"

enum class CorpusFormat {
  kText,       // documents by a DocumentRule
  kJsonLines,  // one object a line; a member of it is the document
  kWikipedia,  // articles as WikiExtractor writes them: <doc id= url= title=>, title line, paragraphs, </doc>
  kTsv,        // tab-separated columns without quoting; one of them is the document
  kGcide,      // a dictionary in dictd's format
  kBuilt,      // token files that were built already
};

struct TextLayout {
  CorpusFormat format = CorpusFormat::kText;
  DocumentRule document = DocumentRule::kParagraph;  // kText
  std::string field = "text";                        // kJsonLines: the member, a text
  std::string column = "text";  // kTsv: a name of the first line; or a number from 1, and the file has no header
  // Rows, articles and compressed files that are broken are left out and counted; otherwise they are errors.
  bool skip_bad_rows = false;
};

// A file of any format but kGcide and kBuilt, plain or packed by gzip, xz or Zstandard (told by content, not by name).
// kNotFound or kPermissionDenied: cannot be opened; kDataLoss: damaged compression, or "FILE line N: what is wrong".
common::Status ReadCorpusFile(const std::filesystem::path& path, const TextLayout& layout, const DocumentSink& sink,
                              CorpusCounts* counts);

// What the file's first line that is not blank looks like: kWikipedia, kJsonLines, else kTsv if `path` is named .tsv
// (.gz, .xz, .zst), else kText.
common::Result<CorpusFormat> GuessFormat(const std::filesystem::path& path);

// ReadCorpusFile of kText.
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
