#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "worker/trainer/tasks/task.h"

// What the WordNet tasks share: reading its database (Princeton WordNet 3.x, man 5 wndb) and splitting by lemma.
namespace allometry::trainer {

struct SynsetPointer {
  std::string symbol;  // "@" hypernym, "~" hyponym, "!" antonym, ...
  int64_t offset = 0;
  char pos = 'n';
};

// A synonym set. `pos`: n, v, a or r (satellite adjectives are a).
struct Synset {
  int64_t offset = 0;
  char pos = 'n';
  int file = 0;                     // lexicographer's file: WordNet's coarse sense
  std::vector<std::string> lemmas;  // lower case, blanks for underscores, no syntactic marker
  std::vector<SynsetPointer> pointers;
  std::string definition;             // the gloss up to its examples
  std::vector<std::string> examples;  // quoted in the gloss, without the quotation marks
};

// One line of a data file. kDataLoss says what is wrong with it.
common::Result<Synset> ParseSynset(std::string_view line);
// A data file; its licence (lines that begin with a blank) is skipped. kDataLoss names file and line.
common::Result<std::vector<Synset>> ReadSynsets(const std::filesystem::path& path, const std::string& name);

// The irregular forms of an .exc file: base form -> inflected forms.
using IrregularForms = std::map<std::string, std::vector<std::string>>;
common::Result<IrregularForms> ReadIrregularForms(const std::filesystem::path& path, const std::string& name);

// Whether the sentence has the lemma in some regular or listed inflection, as whole words. pos: n or v.
bool UsesLemma(std::string_view sentence, const std::string& lemma, char pos, const IrregularForms& irregular);

// One lemma in five belongs to validation, by a hash of its text: the same in every task and on every machine.
bool IsValidationLemma(std::string_view lemma);
uint64_t TextHash(std::string_view text, uint64_t salt);

// Cuts every label's examples to the rarest label's number, in an order given by a hash of the input, and deals them
// out label by label, so that every prefix is balanced too. Returns how many were left out.
int64_t BalanceLabels(size_t label_count, std::vector<TaskExample>* examples);

}  // namespace allometry::trainer
