#pragma once

#include <string_view>

namespace allometry::trainer {

// Whether an answer names the referent, by T5's rule (postprocessor `wsc_simple`): case (of ASCII letters) and
// determiners aside, the words of one are all among the words of the other; but an apostrophe in only one of the two
// means that they differ, so that "Bob's hat" is not "Bob". Words are separated by single blanks, and punctuation is
// part of them.
bool MatchesReferent(std::string_view answer, std::string_view referent);

}  // namespace allometry::trainer
