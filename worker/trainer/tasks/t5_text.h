#pragma once

#include <string>
#include <string_view>

namespace allometry::trainer {

// Runs of white space (blank, tab, newline, form feed, carriage return) become one blank, at the ends too.
std::string CollapseBlanks(std::string_view text);

// T5's `_pad_punctuation`: a blank before and behind every character that is not an ASCII letter, digit or underscore
// (so behind every accented letter too), then CollapseBlanks. A text that begins or ends so keeps a blank there.
// `text`: UTF-8.
std::string PadPunctuationAsT5(std::string_view text);

}  // namespace allometry::trainer
