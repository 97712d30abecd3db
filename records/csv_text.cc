#include "records/csv_text.h"

namespace allometry::records {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

class CsvParser {
 public:
  CsvParser(std::string_view text, const std::string& where) : text_(text), where_(where) {
    if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
  }

  common::Result<std::vector<CsvLine>> Parse() {
    std::vector<CsvLine> lines;
    while (at_ < text_.size()) {
      CsvLine line{number_, {}};
      do {
        ALLO_ASSIGN_OR_RETURN(std::string field, Field());
        line.fields.push_back(std::move(field));
      } while (Take(','));
      Take('\r');
      Take('\n');
      ++number_;
      if (line.fields.size() > 1 || !line.fields.front().empty()) lines.push_back(std::move(line));
    }
    return lines;
  }

 private:
  bool Take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  common::Result<std::string> Field() {
    if (Take('"')) return QuotedField();
    std::string field;
    while (at_ < text_.size() && !EndsField()) field += text_[at_++];
    return field;
  }

  bool EndsField() const {
    const std::string_view rest = text_.substr(at_);
    return rest.front() == ',' || rest.front() == '\n' || rest.starts_with("\r\n") || rest == "\r";
  }

  common::Result<std::string> QuotedField() {
    const int opened = number_;
    std::string field;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') ++number_;
      if (text_[at_] != '"') {
        field += text_[at_];
      } else if (text_.substr(at_).starts_with("\"\"")) {
        field += text_[at_++];
      } else {
        ++at_;
        if (at_ < text_.size() && !EndsField())
          return Wrong(number_, "text after the closing quote: double a quote that belongs to the text");
        return field;
      }
    }
    return Wrong(opened, "a quote is opened here and never closed");
  }

  common::Error Wrong(int line, const std::string& what) const {
    return common::InvalidArgument(where_ + ":" + std::to_string(line) + ": " + what);
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  int number_ = 1;
};

}  // namespace

common::Result<std::vector<CsvLine>> ParseCsv(std::string_view text, const std::string& where) {
  return CsvParser(text, where).Parse();
}

}  // namespace allometry::records
