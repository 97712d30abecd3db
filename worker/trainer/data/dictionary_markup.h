#pragma once

#include <string>
#include <string_view>

namespace allometry::trainer {

// A dictionary entry of GCIDE as prose: headword and part of speech; then the definitions, with notes, synonyms and
// quotations. Left out: pronunciations, inflections and etymology of the heading, tags that name a source ([1913
// Webster]), and the braces and syllable marks of cross-references. Letters written as [ae] or ["u] become the letters
// (as base and combining mark, which the tokenizer's normalisation composes). Line breaks stay.
std::string EntryAsProse(std::string_view entry);

}  // namespace allometry::trainer
