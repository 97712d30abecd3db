// superglue_wsc: whom or what does a pronoun mean? (Levesque et al. 2012, the Winograd Schema Challenge)
//   wsc: The fish ate the worm . *It* was tasty.  ->  The worm
// As T5 (preprocessor `wsc_simple`): the model writes the referent. Training takes only the rows whose referent is
// right (259 of 554 in the published file); validation keeps all, and the answer is scored by whether it names the
// row's referent (MatchesReferent) exactly if the label is true. Mended as T5 and TensorFlow Datasets (wsc.fixed) do:
// a referent that is not in the text gets the case of the word it stands for, loses a final full stop and line breaks;
// a pronoun with punctuation behind it is marked without that; a pronoun whose position is wrong is looked for nearby.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>

#include "worker/trainer/tasks/superglue.h"
#include "worker/trainer/tasks/wsc_referent.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 21> kDeterminers = {"a",     "an",    "each", "every", "few",   "her",   "his",
                                                           "many",  "much",  "my",   "our",   "some",  "that",  "the",
                                                           "their", "these", "this", "those", "which", "whose", "your"};

bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsReferentLetter(char c) {
  return IsLower(c) || IsUpper(c) || (c >= '0' && c <= '9') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

std::string_view Stripped(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\n\r\f\v";
  const size_t first = text.find_first_not_of(kBlanks);
  return first == text.npos ? std::string_view() : text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// Where the words begin that single blanks separate.
std::vector<size_t> WordStarts(std::string_view text) {
  std::vector<size_t> starts = {0};
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] == ' ') starts.push_back(i + 1);
  return starts;
}

// The words, lower case and without determiners; one empty word if nothing is left.
std::set<std::string> ContentWords(std::string_view text) {
  std::string lower(Stripped(text));
  for (char& c : lower)
    if (IsUpper(c)) c = static_cast<char>(c - 'A' + 'a');
  std::set<std::string> words;
  for (size_t start : WordStarts(lower)) {
    const std::string word = lower.substr(start, lower.find(' ', start) - start);
    if (std::ranges::find(kDeterminers, word) == kDeterminers.end()) words.insert(word);
  }
  if (words.empty()) words.insert("");
  return words;
}

// Whether the pronoun begins here and ends with a word, punctuation aside.
bool PronounAt(std::string_view text, size_t start, std::string_view pronoun) {
  if (start > text.size() || !text.substr(start).starts_with(pronoun)) return false;
  const size_t end = start + pronoun.size();
  return end == text.size() || !(IsReferentLetter(text[end]) || text[end] == '\'');
}

// Where the pronoun stands: at the word of this number, or else at the word nearest to it that is the pronoun.
std::optional<size_t> FindPronoun(std::string_view text, int64_t word, std::string_view pronoun) {
  const std::vector<size_t> starts = WordStarts(text);
  std::optional<size_t> nearest;
  int64_t least = 0;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t distance = std::abs(static_cast<int64_t>(i) - word);
    if ((nearest && distance >= least) || !PronounAt(text, starts[i], pronoun)) continue;
    nearest = starts[i];
    least = distance;
  }
  return nearest;
}

// The text with the pronoun between asterisks. Punctuation that follows without a blank gets one, as in T5's data.
std::string Marked(std::string_view text, size_t start, std::string_view pronoun) {
  const std::string_view rest = text.substr(start + pronoun.size());
  std::string out(text.substr(0, start));
  out.append("*").append(pronoun).append("*");
  if (!rest.empty() && rest[0] != ' ') out += ' ';
  return out.append(rest);
}

// The referent as it stands in the text, if a change of its first letter's case, its full stop and its line breaks
// brings it there.
std::string MendedReferent(std::string referent, std::string_view text, int64_t word) {
  if (text.find(referent) != text.npos || referent.empty()) return referent;
  const std::vector<size_t> starts = WordStarts(text);
  char& initial = referent[0];
  if (word >= 0 && word < static_cast<int64_t>(starts.size())) {
    const bool lower = IsLower(text[starts[static_cast<size_t>(word)]]);
    if (lower && IsUpper(initial)) initial = static_cast<char>(initial - 'A' + 'a');
    if (!lower && IsLower(initial)) initial = static_cast<char>(initial - 'a' + 'A');
  }
  while (referent.ends_with('.')) referent.pop_back();
  std::ranges::replace(referent, '\n', ' ');
  return referent;
}

class SuperglueWsc : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_wsc"; }
  AnswerKind answer() const override { return AnswerKind::kReferent; }
  std::span<const std::string_view> labels() const override { return {}; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(const std::string full_text, row.Text("text"));
    ALLO_ASSIGN_OR_RETURN(const JsonRow target, row.Object("target"));
    ALLO_ASSIGN_OR_RETURN(const std::string referent, target.Text("span1_text"));
    ALLO_ASSIGN_OR_RETURN(const int64_t referent_word, target.Integer("span1_index"));
    ALLO_ASSIGN_OR_RETURN(const std::string pronoun, target.Text("span2_text"));
    ALLO_ASSIGN_OR_RETURN(const int64_t pronoun_word, target.Integer("span2_index"));
    const std::string_view text = Stripped(full_text);
    const std::optional<size_t> start = FindPronoun(text, pronoun_word, pronoun);
    if (!start || pronoun.empty()) return target.Wrong("the pronoun '" + pronoun + "' is not in the text");
    TaskExample example;
    example.input = "wsc: " + Marked(text, *start, pronoun);
    example.target = MendedReferent(referent, text, referent_word);
    if (example.target.empty()) return target.Wrong("'span1_text' is empty");
    example.references = {example.target};
    ALLO_ASSIGN_OR_RETURN(example.label, row.Truth("label"));
    ALLO_ASSIGN_OR_RETURN(example.id, row.Id("idx"));
    split->examples.push_back(std::move(example));
    return common::Ok();
  }

  // The referents that the split's rows name for a pronoun are what there is to choose from: labels say nothing of it.
  void EndSplit(SuperglueSplit* split) const override {
    std::map<std::string, std::vector<std::string>> candidates;
    for (const TaskExample& example : split->examples) {
      std::vector<std::string>& of_input = candidates[example.input];
      if (std::ranges::find(of_input, example.target) == of_input.end()) of_input.push_back(example.target);
    }
    for (TaskExample& example : split->examples) example.choices = candidates[example.input];
    if (!split->train) return;
    const auto wrong = std::erase_if(split->examples, [](const TaskExample& e) { return e.label == 0; });
    AddCount(split->counts, split->name + "_rows_with_a_wrong_referent", static_cast<int64_t>(wrong));
  }
};

}  // namespace

bool MatchesReferent(std::string_view answer, std::string_view referent) {
  const std::set<std::string> answered = ContentWords(answer), wanted = ContentWords(referent);
  const auto has_apostrophe = [](const std::set<std::string>& words) {
    return std::ranges::any_of(words, [](const std::string& w) { return w.find('\'') != w.npos; });
  };
  if (has_apostrophe(answered) != has_apostrophe(wanted)) return false;
  return std::ranges::includes(answered, wanted) || std::ranges::includes(wanted, answered);
}

const Task& SuperglueWscTask() {
  static const SuperglueWsc task;
  return task;
}

}  // namespace allometry::trainer
