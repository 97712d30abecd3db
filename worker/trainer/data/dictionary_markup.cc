#include "worker/trainer/data/dictionary_markup.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace allometry::trainer {
namespace {

// Tags with a name of their own.
constexpr std::pair<std::string_view, std::string_view> kNamedLetters[] = {
    {"ae", "æ"},    {"AE", "Æ"},    {"oe", "œ"},    {"OE", "Œ"},     {"eth", "ð"},    {"thorn", "þ"},  {"deg", "°"},
    {"root", "√"},  {"imac", "ī"},  {"aum", "ä"},   {"ng", "ŋ"},     {"th", "th"},    {"asl", "a"},    {"add", "a"},
    {"=ae", "ǣ"},   {"=oo", "oo"},  {"oo^", "oo"},  {"frac12", "½"}, {"frac14", "¼"}, {"frac34", "¾"}, {"pound", "£"},
    {"times", "×"}, {"Prime", "″"}, {"prime", "′"}, {"sect", "§"}};

// Marks before a letter, and the combining character each stands for.
constexpr std::pair<char, std::string_view> kMarksBefore[] = {
    {'=', "\xCC\x84"}, {'\'', "\xCC\x81"}, {'`', "\xCC\x80"}, {'^', "\xCC\x82"}, {'"', "\xCC\x88"},
    {'~', "\xCC\x83"}, {',', "\xCC\xA7"},  {'.', "\xCC\xA3"}, {'-', ""},         {'*', ""}};
constexpr std::pair<char, std::string_view> kMarksAfter[] = {{'^', "\xCC\x86"}, {'~', "\xCC\x83"}, {'.', "\xCC\x87"}};

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::optional<std::string> Marked(std::string_view tag) {
  if (tag.size() != 2) return std::nullopt;
  for (const auto& [mark, combining] : kMarksBefore)
    if (tag[0] == mark && IsLetter(tag[1])) return std::string(1, tag[1]).append(combining);
  for (const auto& [mark, combining] : kMarksAfter)
    if (tag[1] == mark && IsLetter(tag[0])) return std::string(1, tag[0]).append(combining);
  return std::nullopt;
}

// The letter that a tag (without its brackets) stands for.
std::optional<std::string> LetterOf(std::string_view tag) {
  for (const auto& [name, letter] : kNamedLetters)
    if (tag == name) return std::string(letter);
  return Marked(tag);
}

bool NamesSource(std::string_view tag) {
  static constexpr std::string_view kSources[] = {"Webster", "WordNet", "PJC", "Century Dict", "RDH", "RP"};
  if (tag == "AS" || tag.starts_with("AS ")) return true;
  return tag.size() < 60 && std::ranges::any_of(kSources, [&](std::string_view s) { return tag.find(s) != tag.npos; });
}

// Copies text, turning letter tags into letters and dropping source tags, pronunciations and braces.
class Cleaner {
 public:
  std::string Clean(std::string_view text) {
    size_t i = 0;
    while (i < text.size()) i += Step(text.substr(i));
    return std::move(out_);
  }

 private:
  // Handles what `rest` begins with; returns how many characters that were.
  size_t Step(std::string_view rest) {
    if (rest[0] == '[') return Bracket(rest);
    if (rest[0] == '{') return Braces(rest);
    if (rest[0] == '\\') return Pronunciation(rest);
    out_ += rest[0];
    return 1;
  }

  size_t Bracket(std::string_view rest) {
    const size_t end = rest.find(']');
    if (end != rest.npos) {
      const std::string_view tag = rest.substr(1, end - 1);
      if (const auto letter = LetterOf(tag)) {
        out_ += *letter;
        return end + 1;
      }
      if (NamesSource(tag)) return end + 1;
    }
    out_ += '[';
    return 1;
  }

  // {Feign"ed*ly} -> Feignedly: marks of syllables and stress go with the braces.
  size_t Braces(std::string_view rest) {
    const size_t end = rest.find('}');
    if (end == rest.npos || end > 200) return 1;
    const std::string_view inside = rest.substr(1, end - 1);
    const bool spoken = inside.find_first_of("*\"`") != inside.npos && inside.find('[') == inside.npos;
    std::string word;
    for (char c : inside)
      if (!spoken || (c != '*' && c != '"' && c != '`')) word += c;
    out_ += Cleaner().Clean(word);
    return end + 1;
  }

  // From one backslash to the next on the same line; the blank before it goes too.
  size_t Pronunciation(std::string_view rest) {
    const size_t end = rest.find('\\', 1);
    if (end == rest.npos || end > rest.find('\n')) return 1;
    while (!out_.empty() && out_.back() == ' ') out_.pop_back();
    return end + 1;
  }

  std::string out_;
};

// Where the heading ends: at the end of the first line that leaves no bracket open. An entry with brackets that never
// close has a heading of one line.
size_t HeadingEnd(std::string_view entry) {
  int depth = 0;
  for (size_t i = 0; i < entry.size(); ++i) {
    if (entry[i] == '[' || entry[i] == '(') ++depth;
    if (entry[i] == ']' || entry[i] == ')') depth = std::max(depth - 1, 0);
    if (entry[i] == '\n' && depth == 0) return i;
    if (entry.substr(i).starts_with("\n\n")) break;
  }
  return std::min(entry.find('\n'), entry.size());
}

void RemoveTrailingBlanks(std::string* text) {
  while (!text->empty() && (text->back() == ' ' || text->back() == '\n')) text->pop_back();
}

// Pronunciations in parentheses have a question mark or a letter tag: (?; 277), (tw[e^]n"t[=e]).
std::string WithoutSpokenParentheses(std::string_view heading) {
  std::string out;
  for (size_t i = 0; i < heading.size(); ++i) {
    const size_t end = heading[i] == '(' ? heading.find(')', i) : heading.npos;
    if (end != heading.npos && heading.substr(i, end - i).find_first_of("?[") != heading.npos) {
      RemoveTrailingBlanks(&out);
      i = end;
    } else {
      out += heading[i];
    }
  }
  return out;
}

// Etymologies and inflections stand in brackets.
std::string WithoutBrackets(std::string_view heading) {
  std::string out;
  int depth = 0;
  for (char c : heading) {
    if (c == '[') ++depth;
    if (depth == 0 && c == ',') RemoveTrailingBlanks(&out);
    if (depth == 0) out += c;
    if (c == ']') depth = std::max(depth - 1, 0);
  }
  return out;
}

// Letter tags such as [ae] belong to the headword and must be letters before brackets are removed.
std::string Heading(std::string_view heading) {
  return WithoutBrackets(Cleaner().Clean(WithoutSpokenParentheses(heading)));
}

}  // namespace

std::string EntryAsProse(std::string_view entry) {
  const size_t end = HeadingEnd(entry);
  return Heading(entry.substr(0, end)) + Cleaner().Clean(entry.substr(end));
}

}  // namespace allometry::trainer
