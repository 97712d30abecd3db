#include "worker/trainer/data/corpus.h"

#include <algorithm>
#include <boost/iostreams/copy.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filter/zstd.hpp>
#include <boost/iostreams/filtering_stream.hpp>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "common/files.h"

namespace allometry::trainer {
namespace {

namespace io = boost::iostreams;
namespace fs = std::filesystem;

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD

// Number of bytes of the well-formed UTF-8 sequence that `s` starts with, or 0 (table 3-7 of the Unicode standard).
size_t SequenceLength(std::string_view s) {
  const auto byte = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const auto within = [](unsigned b, unsigned low, unsigned high) { return b >= low && b <= high; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (within(lead, 0xC2, 0xDF)) return within(byte(1), 0x80, 0xBF) ? 2 : 0;
  if (within(lead, 0xE0, 0xEF)) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80, high = lead == 0xED ? 0x9F : 0xBF;
    return within(byte(1), low, high) && within(byte(2), 0x80, 0xBF) ? 3 : 0;
  }
  if (within(lead, 0xF0, 0xF4)) {
    const unsigned low = lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xF4 ? 0x8F : 0xBF;
    return within(byte(1), low, high) && within(byte(2), 0x80, 0xBF) && within(byte(3), 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Collects the lines of one document and hands it over.
class DocumentBuilder {
 public:
  DocumentBuilder(const DocumentSink& sink, CorpusCounts* counts) : sink_(sink), counts_(counts) {}

  void AddLine(std::string_view raw_line) {
    bool replaced = false;
    const std::string line = ValidUtf8(raw_line, &replaced);
    counts_->replaced_lines += replaced;
    bool in_word = false;
    for (char c : line) {
      if (IsBlank(c)) {
        in_word = false;
        continue;
      }
      if (!in_word) {
        if (!text_.empty()) text_ += ' ';
        ++words_;
      }
      in_word = true;
      text_ += c;
    }
  }

  common::Status Finish() {
    if (text_.empty()) return common::Ok();
    ++counts_->documents;
    counts_->words += words_;
    const common::Status status = sink_(text_);
    text_.clear();
    words_ = 0;
    return status;
  }

 private:
  const DocumentSink& sink_;
  CorpusCounts* counts_;
  std::string text_;
  int64_t words_ = 0;
};

// A file's bytes, decompressed by its ending. Owns the file that the filter chain reads from.
class TextStream {
 public:
  static common::Result<std::unique_ptr<TextStream>> Open(const fs::path& path) {
    auto stream = std::unique_ptr<TextStream>(new TextStream(path));
    if (stream->file_) return stream;
    const auto code = fs::exists(path) ? common::ErrorCode::kPermissionDenied : common::ErrorCode::kNotFound;
    return common::Error{code, "cannot open '" + path.string() + "': " + common::ErrnoText()};
  }
  // Throws std::exception (Boost's own types) when the compression is damaged.
  bool NextLine(std::string* line) { return static_cast<bool>(std::getline(chain_, *line)); }
  std::string ReadAll() {
    std::ostringstream all;
    io::copy(chain_, all);
    return std::move(all).str();
  }

 private:
  explicit TextStream(const fs::path& path) : file_(path, std::ios::binary) {
    const std::string extension = path.extension();
    if (extension == ".gz" || extension == ".dz") chain_.push(io::gzip_decompressor());
    if (extension == ".xz") chain_.push(io::lzma_decompressor());
    if (extension == ".zst") chain_.push(io::zstd_decompressor());
    chain_.push(file_);
    chain_.exceptions(std::ios::badbit);
  }
  std::ifstream file_;
  io::filtering_istream chain_;
};

common::Error Damaged(const fs::path& path, const std::exception& e) {
  return common::DataLoss("'" + path.string() + "' cannot be decompressed, the file is damaged or cut off: " + e.what());
}

common::Status ReadLines(TextStream* stream, DocumentRule rule, DocumentBuilder* document) {
  std::string line;
  while (stream->NextLine(&line)) {
    const bool blank = std::ranges::all_of(line, IsBlank);
    document->AddLine(line);
    if (rule == DocumentRule::kLine || (rule == DocumentRule::kParagraph && blank))
      ALLO_RETURN_IF_ERROR(document->Finish());
  }
  return document->Finish();
}

struct IndexEntry {
  uint64_t offset = 0, length = 0;
  auto operator<=>(const IndexEntry&) const = default;
};

// dictd writes numbers in base 64, most significant digit first.
std::optional<uint64_t> DecodeBase64Number(std::string_view digits) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint64_t value = 0;
  if (digits.empty() || digits.size() > 8) return std::nullopt;
  for (char c : digits) {
    const size_t digit = kDigits.find(c);
    if (digit == kDigits.npos) return std::nullopt;
    value = value * 64 + digit;
  }
  return value;
}

std::optional<IndexEntry> ParseIndexLine(std::string_view line) {
  const size_t first = line.find('\t'), second = line.find('\t', first + 1);
  if (first == line.npos || second == line.npos) return std::nullopt;
  const auto offset = DecodeBase64Number(line.substr(first + 1, second - first - 1));
  const auto length = DecodeBase64Number(line.substr(second + 1, line.find('\t', second + 1) - second - 1));
  if (!offset || !length) return std::nullopt;
  return IndexEntry{*offset, *length};
}

// The places of all entries but those about the database, each once, in the dictionary's order.
common::Result<std::set<IndexEntry>> ReadIndex(const fs::path& path, uint64_t dictionary_size) {
  ALLO_ASSIGN_OR_RETURN(auto stream, TextStream::Open(path));
  std::set<IndexEntry> entries;
  std::string line;
  for (int64_t number = 1; stream->NextLine(&line); ++number) {
    if (line.starts_with("00-")) continue;
    const std::optional<IndexEntry> entry = ParseIndexLine(line);
    if (!entry || entry->offset + entry->length > dictionary_size)
      return common::DataLoss(path.string() + ":" + std::to_string(number) +
                              ": not a headword, offset and length inside the dictionary");
    // Some headwords point at no text of their own.
    if (entry->length > 0) entries.insert(*entry);
  }
  return entries;
}

std::string_view Trimmed(std::string_view s) {
  while (!s.empty() && IsBlank(s.front())) s.remove_prefix(1);
  while (!s.empty() && IsBlank(s.back())) s.remove_suffix(1);
  return s;
}

// Tags such as [1913 Webster] and [WordNet 1.5 +PJC] stand on lines of their own.
bool IsSourceTag(std::string_view line) {
  const std::string_view text = Trimmed(line);
  return text.size() > 2 && text.front() == '[' && text.find(']') == text.size() - 1;
}

// The line without pronunciations (between backslashes) and the braces around cross-references.
std::string WithoutMarkup(std::string_view line) {
  std::string out;
  bool spoken = false;
  const bool paired = std::ranges::count(line, '\\') % 2 == 0;
  for (char c : line) {
    if (c == '\\' && paired) spoken = !spoken;
    else if (!spoken && c != '{' && c != '}') out += c;
  }
  return out;
}

void AddEntry(std::string_view text, DocumentBuilder* document) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (!IsSourceTag(line)) document->AddLine(WithoutMarkup(line));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

std::string ValidUtf8(std::string_view line, bool* replaced) {
  std::string out;
  out.reserve(line.size());
  while (!line.empty()) {
    const size_t length = SequenceLength(line);
    if (length == 0) {
      out += kReplacement;
      *replaced = true;
    } else {
      out.append(line.substr(0, length));
    }
    line.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

common::Result<DocumentRule> ParseDocumentRule(std::string_view name) {
  if (name == "paragraph") return DocumentRule::kParagraph;
  if (name == "line") return DocumentRule::kLine;
  if (name == "file") return DocumentRule::kFile;
  return common::InvalidArgument("document is '" + std::string(name) + "'; allowed: paragraph line file");
}

common::Status ReadTextFile(const fs::path& path, DocumentRule rule, const DocumentSink& sink, CorpusCounts* counts) {
  ALLO_ASSIGN_OR_RETURN(auto stream, TextStream::Open(path));
  DocumentBuilder document(sink, counts);
  try {
    return ReadLines(stream.get(), rule, &document);
  } catch (const std::ios_base::failure& e) {  // Boost's decompression errors are of this type
    return Damaged(path, e);
  }
}

common::Status ReadDictionary(const fs::path& dict_dz, const fs::path& index, const DocumentSink& sink,
                              CorpusCounts* counts) {
  ALLO_ASSIGN_OR_RETURN(auto stream, TextStream::Open(dict_dz));
  std::string text;
  try {
    text = stream->ReadAll();
  } catch (const std::ios_base::failure& e) {
    return Damaged(dict_dz, e);
  }
  ALLO_ASSIGN_OR_RETURN(const std::set<IndexEntry> entries, ReadIndex(index, text.size()));
  DocumentBuilder document(sink, counts);
  for (const IndexEntry& entry : entries) {
    AddEntry(std::string_view(text).substr(entry.offset, entry.length), &document);
    ALLO_RETURN_IF_ERROR(document.Finish());
  }
  return common::Ok();
}

}  // namespace allometry::trainer
