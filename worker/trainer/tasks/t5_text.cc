#include "worker/trainer/tasks/t5_text.h"

namespace allometry::trainer {
namespace {

bool IsWhite(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r'; }
bool IsWordLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}
bool ContinuesCharacter(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

std::string CollapseBlanks(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_white = false;
  for (char c : text) {
    if (!IsWhite(c)) out += c;
    if (IsWhite(c) && !in_white) out += ' ';
    in_white = IsWhite(c);
  }
  return out;
}

std::string PadPunctuationAsT5(std::string_view text) {
  std::string padded;
  for (size_t i = 0; i < text.size();) {
    size_t end = i + 1;
    while (end < text.size() && ContinuesCharacter(text[end])) ++end;
    const std::string_view character = text.substr(i, end - i);
    const bool plain = IsWordLetter(character[0]);
    padded.append(plain ? "" : " ").append(character).append(plain ? "" : " ");
    i = end;
  }
  return CollapseBlanks(padded);
}

}  // namespace allometry::trainer
