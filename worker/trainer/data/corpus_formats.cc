// The formats of raw text files: text, JSON lines, Wikipedia extracts, TSV.
#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include "common/json.h"
#include "worker/trainer/data/corpus.h"
#include "worker/trainer/data/decompress.h"
#include "worker/trainer/data/document_builder.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

constexpr std::string_view kArticleBegin = "<doc id=", kArticleEnd = "</doc>";

// The lines of one file, with their numbers, and what becomes of those that are wrong.
class CorpusLines {
 public:
  static common::Result<CorpusLines> Open(const fs::path& path, bool skip_bad_rows, CorpusCounts* counts) {
    ALLO_ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(path));
    return CorpusLines(std::move(reader), path, skip_bad_rows, counts);
  }

  // The next line, or the next piece of a very long one; false at the end.
  common::Result<bool> Next(std::string* line) {
    number_ += !reader_.line_cut();
    const auto more = reader_.NextLine(line);
    counts_->file_bytes = reader_.file_bytes();
    if (!more) return Damaged(more.error());
    if (number_ == 1 && line->starts_with("\xEF\xBB\xBF")) line->erase(0, 3);  // a byte-order mark
    return *more;
  }

  // As Next, for formats whose lines are rows: passes over blank lines and, as bad rows, over very long ones.
  common::Result<bool> NextRow(std::string* line) {
    for (;;) {
      ALLO_ASSIGN_OR_RETURN(bool more, Next(line));
      if (!more) return false;
      if (!reader_.line_cut()) {
        if (std::ranges::all_of(*line, IsBlank)) continue;
        return true;
      }
      ALLO_RETURN_IF_ERROR(Bad("the row is longer than 64 MiB"));
      while (more && reader_.line_cut()) {
        ALLO_ASSIGN_OR_RETURN(more, Next(line));
      }
    }
  }

  // Ok where bad rows are left out and counted.
  common::Status Bad(const std::string& what, int64_t line) {
    const std::string message = Place(line) + ": " + what;
    if (!skip_bad_rows_) return common::DataLoss(message);
    ++counts_->bad_rows;
    Remember(message);
    return common::Ok();
  }
  common::Status Bad(const std::string& what) { return Bad(what, number_); }

  std::string Place(int64_t line) const { return path_.string() + " line " + std::to_string(line); }
  int64_t number() const { return number_; }  // of the line read last, from 1
  bool damaged() const { return damaged_; }   // the file ended before its end

 private:
  CorpusLines(TextReader reader, fs::path path, bool skip_bad_rows, CorpusCounts* counts)
      : reader_(std::move(reader)), path_(std::move(path)), skip_bad_rows_(skip_bad_rows), counts_(counts) {}

  common::Result<bool> Damaged(const common::Error& error) {
    if (!skip_bad_rows_ || error.code != common::ErrorCode::kDataLoss) return error;
    ++counts_->damaged_files;
    Remember(error.message);
    damaged_ = true;
    return false;
  }

  void Remember(const std::string& message) {
    if (counts_->first_bad.empty()) counts_->first_bad = message;
  }

  TextReader reader_;
  fs::path path_;
  bool skip_bad_rows_;
  CorpusCounts* counts_;
  int64_t number_ = 0;
  bool damaged_ = false;
};

common::Status ReadText(CorpusLines* lines, DocumentRule rule, DocumentBuilder* document) {
  std::string line;
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, lines->Next(&line));
    if (!more) break;
    const bool blank = std::ranges::all_of(line, IsBlank);
    document->AddText(line);
    ALLO_RETURN_IF_ERROR(document->CutIfTooLong());
    if (rule == DocumentRule::kLine || (rule == DocumentRule::kParagraph && blank))
      ALLO_RETURN_IF_ERROR(document->Finish());
  }
  if (lines->damaged()) document->Drop();  // a part of a document
  return document->Finish();
}

// The member of a row that is the document, or what is wrong with the row.
std::optional<std::string> FieldOfRow(const std::string& line, const std::string& field, std::string* text) {
  const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (row.is_discarded()) return "not valid JSON";
  if (!row.is_object()) return "not a JSON object but " + std::string(row.type_name());
  const auto member = row.find(field);
  if (member == row.end()) return "the row has no field '" + field + "'";
  if (!member->is_string())
    return "the field '" + field + "' is no text but " + std::string(member->type_name()) + " " +
           member->dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 40);
  *text = member->get<std::string>();
  return std::nullopt;
}

common::Status ReadJsonRows(CorpusLines* lines, const std::string& field, DocumentBuilder* document,
                            CorpusCounts* counts) {
  std::string line, text;
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, lines->NextRow(&line));
    if (!more) return common::Ok();
    bool replaced = false;
    const std::string valid = ValidUtf8(line, &replaced);
    counts->replaced_lines += replaced;
    if (const auto wrong = FieldOfRow(valid, field, &text)) {
      ALLO_RETURN_IF_ERROR(lines->Bad(*wrong));
      continue;
    }
    document->AddText(text);
    ALLO_RETURN_IF_ERROR(document->FinishRow());
  }
}

common::Status ReadWikipedia(CorpusLines* lines, DocumentBuilder* document) {
  std::string line;
  int64_t begun = 0;  // line of the article's beginning; 0 outside of articles
  const auto unfinished = [&] {
    document->Drop();
    return lines->Bad("the article that begins here has no end (" + std::string(kArticleEnd) + ")", begun);
  };
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, lines->Next(&line));
    if (!more) break;
    if (line.starts_with(kArticleBegin)) {
      if (begun > 0) ALLO_RETURN_IF_ERROR(unfinished());
      begun = lines->number();
    } else if (begun > 0 && line.starts_with(kArticleEnd)) {
      ALLO_RETURN_IF_ERROR(document->FinishRow());
      begun = 0;
    } else if (begun > 0) {
      document->AddText(line);
      ALLO_RETURN_IF_ERROR(document->CutIfTooLong());
    } else if (!std::ranges::all_of(line, IsBlank)) {
      ALLO_RETURN_IF_ERROR(lines->Bad("text outside of an article (<doc id=… url=… title=…> … </doc>)"));
    }
  }
  // Of a damaged file the last article is part of the damage that was counted.
  if (lines->damaged()) document->Drop();
  return begun > 0 && !lines->damaged() ? unfinished() : common::Ok();
}

std::vector<std::string_view> Columns(std::string_view line) {
  std::vector<std::string_view> columns;
  for (;;) {
    const size_t tab = line.find('\t');
    columns.push_back(line.substr(0, tab));
    if (tab == line.npos) return columns;
    line.remove_prefix(tab + 1);
  }
}

// The number of a column that is named by its number, from 0.
std::optional<size_t> NumberedColumn(const std::string& name) {
  size_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || number == 0) return std::nullopt;
  return number - 1;
}

std::string InWords(size_t columns) { return std::to_string(columns) + (columns == 1 ? " column" : " columns"); }

common::Status ReadTsv(CorpusLines* lines, const std::string& name, DocumentBuilder* document) {
  std::string line;
  std::optional<size_t> column = NumberedColumn(name);
  size_t header_columns = 0;  // 0: the file has no header
  if (!column) {
    ALLO_ASSIGN_OR_RETURN(const bool more, lines->NextRow(&line));
    if (!more) return common::Ok();
    const std::vector<std::string_view> header = Columns(line);
    header_columns = header.size();
    column = static_cast<size_t>(std::ranges::find(header, name) - header.begin());
    // A mistake of the command and not of a row, so that there is nothing to skip.
    if (*column == header_columns)
      return common::DataLoss(lines->Place(lines->number()) + ": the header has no column '" + name +
                              "'; it is: " + line.substr(0, 200));
  }
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, lines->NextRow(&line));
    if (!more) return common::Ok();
    const std::vector<std::string_view> columns = Columns(line);
    if (header_columns > 0 ? columns.size() != header_columns : *column >= columns.size()) {
      ALLO_RETURN_IF_ERROR(lines->Bad("the row has " + InWords(columns.size()) +
                                      (header_columns > 0 ? ", and the header has " + std::to_string(header_columns)
                                                          : ", and column " + name + " is asked for")));
      continue;
    }
    document->AddText(columns[*column]);
    ALLO_RETURN_IF_ERROR(document->FinishRow());
  }
}

bool NamedTsv(const fs::path& path) {
  const std::string name = path.filename().string();
  return std::ranges::any_of(std::vector<std::string_view>{".tsv", ".tsv.gz", ".tsv.xz", ".tsv.zst"},
                             [&](std::string_view ending) { return name.ends_with(ending); });
}

}  // namespace

common::Status ReadCorpusFile(const fs::path& path, const TextLayout& layout, const DocumentSink& sink,
                              CorpusCounts* counts) {
  ALLO_ASSIGN_OR_RETURN(CorpusLines lines, CorpusLines::Open(path, layout.skip_bad_rows, counts));
  DocumentBuilder document(sink, counts);
  switch (layout.format) {
    case CorpusFormat::kJsonLines:
      return ReadJsonRows(&lines, layout.field, &document, counts);
    case CorpusFormat::kWikipedia:
      return ReadWikipedia(&lines, &document);
    case CorpusFormat::kTsv:
      return ReadTsv(&lines, layout.column, &document);
    case CorpusFormat::kText:
      return ReadText(&lines, layout.document, &document);
    case CorpusFormat::kGcide:
    case CorpusFormat::kBuilt:
      break;
  }
  return common::Internal("ReadCorpusFile: not a format of single files");
}

common::Result<CorpusFormat> GuessFormat(const fs::path& path) {
  CorpusCounts counts;
  ALLO_ASSIGN_OR_RETURN(CorpusLines lines, CorpusLines::Open(path, /*skip_bad_rows=*/true, &counts));
  std::string line;
  ALLO_ASSIGN_OR_RETURN(const bool any, lines.NextRow(&line));
  if (any && line.starts_with(kArticleBegin)) return CorpusFormat::kWikipedia;
  if (any && line.starts_with('{') && Json::accept(line)) return CorpusFormat::kJsonLines;
  return NamedTsv(path) ? CorpusFormat::kTsv : CorpusFormat::kText;
}

}  // namespace allometry::trainer
