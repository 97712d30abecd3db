#include "records/flat_numbers.h"

#include <algorithm>
#include <charconv>

namespace allometry::records {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Takes one piece of the text after another; each says whether it was there.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool Take(char wanted) {
    SkipSpace();
    if (text_.empty() || text_.front() != wanted) return false;
    text_.remove_prefix(1);
    return true;
  }

  bool TakeName(std::string_view* name) {
    if (!Take('"')) return false;
    size_t end = 0;
    while (end < text_.size() && text_[end] >= ' ' && text_[end] <= '~' && text_[end] != '"' && text_[end] != '\\')
      ++end;
    *name = text_.substr(0, end);
    text_.remove_prefix(end);
    return Take('"');
  }

  // What from_chars takes and JSON does not (words, a point at either end) is no number here.
  bool TakeNumber(double* number) {
    SkipSpace();
    const char* begin = text_.data();
    const char* end = begin + text_.size();
    const char* first = begin != end && *begin == '-' ? begin + 1 : begin;
    if (first == end || !IsDigit(*first)) return false;
    const auto [after, error] = std::from_chars(begin, end, *number);
    if (error != std::errc() || !IsDigit(after[-1])) return false;
    text_.remove_prefix(static_cast<size_t>(after - begin));
    return true;
  }

  bool AtEnd() {
    SkipSpace();
    return text_.empty();
  }

 private:
  void SkipSpace() {
    const size_t spaces = text_.find_first_not_of(" \t\r\n");
    text_.remove_prefix(std::min(spaces, text_.size()));
  }

  std::string_view text_;
};

}  // namespace

std::optional<std::vector<std::pair<std::string_view, double>>> ReadFlatNumbers(std::string_view text) {
  std::vector<std::pair<std::string_view, double>> members;
  Scanner scanner(text);
  if (!scanner.Take('{')) return std::nullopt;
  if (scanner.Take('}')) return scanner.AtEnd() ? std::optional(members) : std::nullopt;
  do {
    auto& [name, number] = members.emplace_back();
    if (!scanner.TakeName(&name) || !scanner.Take(':') || !scanner.TakeNumber(&number)) return std::nullopt;
  } while (scanner.Take(','));
  if (!scanner.Take('}') || !scanner.AtEnd()) return std::nullopt;
  return members;
}

}  // namespace allometry::records
