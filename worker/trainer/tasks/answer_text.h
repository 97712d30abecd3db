#pragma once

#include <string>
#include <string_view>

// Free-text answers as SQuAD v1.1's evaluation sees them (Rajpurkar et al. 2016, arXiv 1606.05250, and its script).
// ReCoRD's evaluation normalises in the same way. Text is UTF-8; every byte that is not part of a well-formed sequence
// counts as U+FFFD. Pure functions, thread-safe.
//
// The script leaves characters to Python: what is lower case, a word or a blank is what Python's str.lower, \b and
// str.split say. The tables here (unicode_tables.h) are those of Unicode 14, which Python 3.11 has; of later additions
// nothing is known.
namespace allometry::trainer {

// What two answers are compared by: lower case; without the 32 ASCII punctuation characters, which leave no blank
// behind ("don't" gives "dont"; other punctuation, such as a dash or a curly quotation mark, stays); without the words
// a, an and the, where a word is a longest run of letters and digits of any script (so "l’a" loses its a and "ça"
// keeps it, and a combining accent ends a word, as it does in Python); with single blanks between what is left and none
// at either end. May be empty.
std::string NormalizeAnswer(std::string_view answer);

// Each character in lower case, as Python's str.lower. One rule is approximate: a capital sigma becomes a final sigma
// after a letter and before none, where only Latin, Greek and Cyrillic letters are looked at.
std::string LowerUtf8(std::string_view text);

// Whether Python's \w matches: letters, numbers of all kinds, and the underscore.
bool IsWordCharacter(char32_t c);

}  // namespace allometry::trainer
