#include "worker/trainer/tasks/answer_text.h"

#include <algorithm>
#include <cstdint>

#include "worker/trainer/data/corpus.h"
#include "worker/trainer/tasks/unicode_tables.h"

namespace allometry::trainer {

namespace {

constexpr char32_t kCapitalSigma = 0x3A3, kSmallSigma = 0x3C3, kFinalSigma = 0x3C2;
constexpr char32_t kCapitalDottedI = 0x130, kDotAbove = 0x307;

bool Between(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }

bool IsAsciiPunctuation(char32_t c) {
  return Between(c, '!', '/') || Between(c, ':', '@') || Between(c, '[', '`') || Between(c, '{', '~');
}

// What Python's str.split takes for a blank.
bool IsWhiteSpace(char32_t c) {
  return Between(c, 0x09, 0x0D) || Between(c, 0x1C, 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         Between(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::u32string DecodeUtf8(std::string_view text) {
  bool replaced = false;
  const std::string valid = ValidUtf8(text, &replaced);
  std::u32string out;
  out.reserve(valid.size());
  for (const char unit : valid) {
    const auto byte = static_cast<unsigned char>(unit);
    if ((byte & 0xC0) == 0x80)
      out.back() = out.back() << 6 | (byte & 0x3F);  // goes on with the character before
    else
      out += byte >= 0xF0 ? byte & 0x07 : byte >= 0xE0 ? byte & 0x0F : byte >= 0xC0 ? byte & 0x1F : byte;
  }
  return out;
}

void AppendUtf8(char32_t c, std::string* out) {
  const auto tail = [&](int shift) { *out += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    *out += static_cast<char>(c);
  } else if (c < 0x800) {
    *out += static_cast<char>(0xC0 | c >> 6);
    tail(0);
  } else if (c < 0x10000) {
    *out += static_cast<char>(0xE0 | c >> 12);
    tail(6);
    tail(0);
  } else {
    *out += static_cast<char>(0xF0 | c >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

char32_t LowerOf(char32_t c) {
  if (c < 0x80) return Between(c, 'A', 'Z') ? c + ('a' - 'A') : c;
  const auto* const end = std::end(kLowerCaseRuns);
  const auto* run = std::lower_bound(std::begin(kLowerCaseRuns), end, c,
                                     [](const LowerCaseRun& r, char32_t value) { return r.last < value; });
  if (run == end || c < run->first || (c - run->first) % run->step != 0) return c;
  return static_cast<char32_t>(static_cast<int32_t>(c) + run->delta);
}

// Of the scripts that write sigmas, or that stand beside them.
bool IsCased(char32_t c) {
  return Between(c, 'A', 'Z') || Between(c, 'a', 'z') ||
         (IsWordCharacter(c) && (Between(c, 0xC0, 0x2AF) || Between(c, 0x370, 0x52F) || Between(c, 0x1E00, 0x1FFF)));
}

// What may stand within a word, so that a sigma looks past it: apostrophes, full stops, accents, soft hyphens.
bool IsCaseIgnorable(char32_t c) {
  constexpr std::u32string_view kSingle = U"'.:^`\u00A8\u00AD\u00AF\u00B4\u00B7\u00B8\u0387\u2018\u2019\u2024\u2027";
  return kSingle.find(c) != kSingle.npos || Between(c, 0x2B0, 0x36F) || Between(c, 0x200B, 0x200F);
}

bool IsFinalSigma(std::u32string_view text, size_t at) {
  size_t before = at, after = at + 1;
  while (before > 0 && IsCaseIgnorable(text[before - 1])) --before;
  while (after < text.size() && IsCaseIgnorable(text[after])) ++after;
  return before > 0 && IsCased(text[before - 1]) && !(after < text.size() && IsCased(text[after]));
}

std::u32string LowerText(const std::u32string& text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == kCapitalSigma) {
      out += IsFinalSigma(text, i) ? kFinalSigma : kSmallSigma;
    } else if (text[i] == kCapitalDottedI) {  // the one character whose lower case is two
      out.append({U'i', kDotAbove});
    } else {
      out += LowerOf(text[i]);
    }
  }
  return out;
}

bool IsArticle(std::u32string_view word) { return word == U"a" || word == U"an" || word == U"the"; }

size_t EndOfWord(std::u32string_view text, size_t at) {
  while (at < text.size() && IsWordCharacter(text[at])) ++at;
  return at;
}

}  // namespace

std::string NormalizeAnswer(std::string_view answer) {
  std::u32string text = LowerText(DecodeUtf8(answer));
  std::erase_if(text, IsAsciiPunctuation);
  std::string out;
  bool gap = false;
  for (size_t at = 0, end = 0; at < text.size(); at = end) {
    end = EndOfWord(text, at);
    const bool article = IsArticle(std::u32string_view(text).substr(at, end - at));
    if (end == at) ++end;  // no word: one other character
    if (article || IsWhiteSpace(text[at])) {
      gap = true;
      continue;
    }
    if (gap && !out.empty()) out += ' ';
    gap = false;
    for (size_t i = at; i < end; ++i) AppendUtf8(text[i], &out);
  }
  return out;
}

std::string LowerUtf8(std::string_view text) {
  std::string out;
  for (char32_t c : LowerText(DecodeUtf8(text))) AppendUtf8(c, &out);
  return out;
}

bool IsWordCharacter(char32_t c) {
  if (c < 0x80) return Between(c, '0', '9') || Between(c, 'A', 'Z') || Between(c, 'a', 'z') || c == '_';
  const auto* const begin = std::begin(kWordBoundaries);
  return (std::upper_bound(begin, std::end(kWordBoundaries), c) - begin) % 2 == 1;
}

}  // namespace allometry::trainer
