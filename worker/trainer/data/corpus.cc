#include "worker/trainer/data/corpus.h"

#include <algorithm>
#include <optional>
#include <set>

#include "worker/trainer/data/decompress.h"
#include "worker/trainer/data/dictionary_markup.h"
#include "worker/trainer/data/document_builder.h"

namespace allometry::trainer {
namespace {

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
  ALLO_ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(path));
  std::set<IndexEntry> entries;
  std::string line;
  for (int64_t number = 1;; ++number) {
    ALLO_ASSIGN_OR_RETURN(const bool more, reader.NextLine(&line));
    if (!more) return entries;
    if (line.starts_with("00-")) continue;
    const std::optional<IndexEntry> entry = ParseIndexLine(line);
    if (!entry || entry->offset + entry->length > dictionary_size)
      return common::DataLoss(path.string() + ":" + std::to_string(number) +
                              ": not a headword, offset and length inside the dictionary");
    // Some headwords point at no text of their own.
    if (entry->length > 0) entries.insert(*entry);
  }
}

void AddEntry(std::string_view entry, DocumentBuilder* document) {
  const std::string prose = EntryAsProse(entry);
  std::string_view text = prose;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    document->AddText(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

size_t AsciiPrefix(std::string_view s) {
  return static_cast<size_t>(std::ranges::find_if(s, [](char c) { return (c & 0x80) != 0; }) - s.begin());
}

}  // namespace

std::string ValidUtf8(std::string_view line, bool* replaced) {
  std::string out;
  out.reserve(line.size());
  while (!line.empty()) {
    const size_t ascii = AsciiPrefix(line);
    out.append(line.substr(0, ascii));
    line.remove_prefix(ascii);
    if (line.empty()) break;
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
  return ReadCorpusFile(path, {.document = rule}, sink, counts);
}

common::Status ReadDictionary(const fs::path& dict_dz, const fs::path& index, const DocumentSink& sink,
                              CorpusCounts* counts) {
  ALLO_ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(dict_dz));
  ALLO_ASSIGN_OR_RETURN(const std::string text, reader.ReadAll());
  ALLO_ASSIGN_OR_RETURN(const std::set<IndexEntry> entries, ReadIndex(index, text.size()));
  DocumentBuilder document(sink, counts);
  for (const IndexEntry& entry : entries) {
    // Entries come in the dictionary's order: the place in it stands for the part of the file that has been read.
    counts->file_bytes = static_cast<int64_t>(static_cast<double>(reader.file_bytes()) *
                                              static_cast<double>(entry.offset) / static_cast<double>(text.size()));
    AddEntry(std::string_view(text).substr(entry.offset, entry.length), &document);
    ALLO_RETURN_IF_ERROR(document.Finish());
  }
  return common::Ok();
}

}  // namespace allometry::trainer
