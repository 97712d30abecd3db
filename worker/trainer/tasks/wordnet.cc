#include "worker/trainer/tasks/wordnet.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "worker/trainer/data/decompress.h"
#include "worker/trainer/data/random.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kSplitSalt = 0x73706c6974, kOrderSalt = 0x64656c6572;
constexpr uint64_t kValidationShare = 5;  // one in five

std::string LowerAscii(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" ;,");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" ;,") - first + 1);
}

// "ice_cream", "Abkhaz(a)" -> "ice cream", "abkhaz"
std::string CleanLemma(std::string_view word) {
  std::string lemma = LowerAscii(word.substr(0, word.find('(')));
  std::ranges::replace(lemma, '_', ' ');
  return lemma;
}

// Reads the numbers and words of a line's first half, one after the other.
class Fields {
 public:
  explicit Fields(std::string_view text) : text_(text) {}
  std::string_view Word() {
    const size_t begin = text_.find_first_not_of(' ');
    if (begin == text_.npos) {
      failed_ = true;
      return {};
    }
    const size_t end = std::min(text_.find(' ', begin), text_.size());
    const std::string_view word = text_.substr(begin, end - begin);
    text_.remove_prefix(end);
    return word;
  }
  int64_t Number(int base) {
    const std::string_view word = Word();
    int64_t value = 0;
    const auto [end, code] = std::from_chars(word.data(), word.data() + word.size(), value, base);
    failed_ |= code != std::errc() || end != word.data() + word.size() || value < 0;
    return failed_ ? 0 : value;
  }
  bool failed() const { return failed_; }

 private:
  std::string_view text_;
  bool failed_ = false;
};

// A gloss is a definition, then examples in quotation marks, each after "; ".
void ReadGloss(std::string_view gloss, Synset* synset) {
  const size_t quoted = gloss.starts_with('"') ? 0 : gloss.find("; \"");
  synset->definition = Trimmed(gloss.substr(0, quoted));
  if (quoted == gloss.npos) return;
  std::string_view rest = gloss.substr(quoted);
  for (size_t open = rest.find('"'); open != rest.npos; open = rest.find('"')) {
    const size_t close = rest.find('"', open + 1);
    const std::string_view example = Trimmed(rest.substr(open + 1, close == rest.npos ? close : close - open - 1));
    if (!example.empty()) synset->examples.emplace_back(example);
    if (close == rest.npos) break;
    rest.remove_prefix(close + 1);
  }
}

bool ReadHead(std::string_view head, Synset* synset) {
  Fields fields(head);
  synset->offset = fields.Number(10);
  synset->file = static_cast<int>(fields.Number(10));
  const std::string_view type = fields.Word();
  if (type.size() != 1 || std::string_view("nvars").find(type[0]) == std::string_view::npos) return false;
  synset->pos = type[0] == 's' ? 'a' : type[0];
  const int64_t words = fields.Number(16);
  for (int64_t i = 0; i < words && !fields.failed(); ++i) {
    synset->lemmas.push_back(CleanLemma(fields.Word()));
    fields.Word();  // the lemma's number in its lexicographer's file
  }
  const int64_t pointers = fields.Number(10);
  for (int64_t i = 0; i < pointers && !fields.failed(); ++i) {
    SynsetPointer pointer{.symbol = std::string(fields.Word()), .offset = fields.Number(10)};
    const std::string_view pos = fields.Word();
    pointer.pos = pos == "s" ? 'a' : pos.empty() ? '?' : pos[0];
    fields.Word();  // source and target words
    synset->pointers.push_back(std::move(pointer));
  }
  return !fields.failed() && words > 0;
}

// Letters, digits and hyphens stay, everything else separates; "dog's" gives "dog s".
std::string AsWords(std::string_view sentence) {
  std::string out = " ";
  for (char c : LowerAscii(sentence)) {
    const bool kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || (c & 0x80);
    if (kept)
      out += c;
    else if (out.back() != ' ')
      out += ' ';
  }
  if (out.back() != ' ') out += ' ';
  return out;
}

bool EndsInVowelConsonant(const std::string& w) {
  const auto vowel = [](char c) { return std::string_view("aeiou").find(c) != std::string_view::npos; };
  return w.size() >= 3 && !vowel(w.back()) && std::string_view("wxy").find(w.back()) == std::string_view::npos &&
         vowel(w[w.size() - 2]);
}

// Every form that English spelling rules could give; forms that do not exist do no harm.
std::vector<std::string> InflectedForms(const std::string& w, char pos, const IrregularForms& irregular) {
  std::vector<std::string> forms = {w, w + "s", w + "es"};
  const std::string stem = w.substr(0, w.size() - 1);
  if (w.back() == 'y') forms.push_back(stem + "ies");
  if (pos == 'v') {
    forms.insert(forms.end(), {w + "ed", w + "ing"});
    if (w.back() == 'e') forms.insert(forms.end(), {w + "d", stem + "ing"});
    if (w.back() == 'y') forms.push_back(stem + "ied");
    if (EndsInVowelConsonant(w)) forms.insert(forms.end(), {w + w.back() + "ed", w + w.back() + "ing"});
  }
  if (const auto found = irregular.find(w); found != irregular.end())
    forms.insert(forms.end(), found->second.begin(), found->second.end());
  return forms;
}

}  // namespace

common::Result<Synset> ParseSynset(std::string_view line) {
  const size_t bar = line.find(" | ");
  if (bar == line.npos) return common::DataLoss("no ' | ' before a gloss");
  Synset synset;
  if (!ReadHead(line.substr(0, bar), &synset))
    return common::DataLoss("not 'offset file type words … pointers …' as wndb(5) describes");
  ReadGloss(line.substr(bar + 3), &synset);
  return synset;
}

common::Result<std::vector<Synset>> ReadSynsets(const fs::path& path, const std::string& name) {
  ALLO_ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(path));
  std::vector<Synset> synsets;
  std::string line;
  for (int64_t number = 1;; ++number) {
    ALLO_ASSIGN_OR_RETURN(const bool more, reader.NextLine(&line));
    if (!more) break;
    if (line.empty() || line[0] == ' ') continue;
    auto synset = ParseSynset(line);
    if (!synset) return common::DataLoss(name + ":" + std::to_string(number) + ": " + synset.error().message);
    synsets.push_back(std::move(*synset));
  }
  if (synsets.empty()) return common::DataLoss(name + ": no synonym set in it; is it WordNet's data file?");
  return synsets;
}

common::Result<IrregularForms> ReadIrregularForms(const fs::path& path, const std::string& name) {
  ALLO_ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(path));
  IrregularForms forms;
  std::string line;
  for (int64_t number = 1;; ++number) {
    ALLO_ASSIGN_OR_RETURN(const bool more, reader.NextLine(&line));
    if (!more) return forms;
    std::istringstream words(line);
    std::string form, base;
    if (line.empty()) continue;
    if (!(words >> form >> base))
      return common::DataLoss(name + ":" + std::to_string(number) + ": not 'form base form …'");
    do forms[CleanLemma(base)].push_back(CleanLemma(form));
    while (words >> base);
  }
}

bool UsesLemma(std::string_view sentence, const std::string& lemma, char pos, const IrregularForms& irregular) {
  if (lemma.empty()) return false;
  const std::string words = AsWords(sentence);
  // Of a phrase a verb inflects its first word and a noun its last.
  const size_t blank = pos == 'v' ? lemma.find(' ') : lemma.rfind(' ');
  std::string before, after, head = lemma;
  if (blank != lemma.npos && pos == 'v') {
    head = lemma.substr(0, blank);
    after = lemma.substr(blank);
  } else if (blank != lemma.npos) {
    before = lemma.substr(0, blank + 1);
    head = lemma.substr(blank + 1);
  }
  if (head.empty()) return false;
  return std::ranges::any_of(InflectedForms(head, pos, irregular), [&](const std::string& form) {
    return words.find(AsWords(before + form + after)) != words.npos;
  });
}

uint64_t TextHash(std::string_view text, uint64_t salt) {
  uint64_t hash = Mix64(salt);
  for (char c : text) hash = Mix64(hash ^ static_cast<unsigned char>(c));
  return hash;
}

bool IsValidationLemma(std::string_view lemma) { return TextHash(lemma, kSplitSalt) % kValidationShare == 0; }

int64_t BalanceLabels(size_t label_count, std::vector<TaskExample>* examples) {
  std::vector<std::vector<std::pair<uint64_t, size_t>>> by_label(label_count);
  for (size_t i = 0; i < examples->size(); ++i) {
    const TaskExample& example = (*examples)[i];
    by_label[static_cast<size_t>(example.label)].emplace_back(TextHash(example.input, kOrderSalt), i);
  }
  size_t fewest = examples->size();
  for (auto& group : by_label) {
    std::ranges::sort(group);
    fewest = std::min(fewest, group.size());
  }
  std::vector<TaskExample> dealt;
  for (size_t i = 0; i < fewest; ++i)
    for (const auto& group : by_label) dealt.push_back(std::move((*examples)[group[i].second]));
  const auto left_out = static_cast<int64_t>(examples->size() - dealt.size());
  *examples = std::move(dealt);
  return left_out;
}

}  // namespace allometry::trainer
