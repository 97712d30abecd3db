// wordnet_wic: do two sentences use a word in the same sense? Made from WordNet's example sentences as WiC was
// (Pilehvar and Camacho-Collados 2019, arXiv 1808.09121): nouns and verbs; true pairs are two examples of one synonym
// set, false pairs examples of two sets of the same word that are not related at first degree, have no common hypernym
// and belong to different lexicographer's files; at most three pairs of each kind a word. A sentence serves one word
// only. Split by lemma; both labels equally frequent.
#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tasks/wordnet.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 2> kSenseLabels = {"true", "false"};
constexpr std::array<std::string_view, 2> kSenseFiles = {"data.noun", "data.verb"};
constexpr std::array<std::string_view, 2> kOptionalFiles = {"noun.exc", "verb.exc"};
constexpr int32_t kSame = 0, kDifferent = 1;
constexpr size_t kPairsPerKind = 3;
constexpr uint64_t kPairSalt = 0x7061697273;

// A sentence that uses a lemma in the sense of a synonym set.
struct Use {
  size_t synset = 0;
  std::string sentence;
  std::vector<std::string> lemmas;  // of the set, found in the sentence
};

std::vector<int64_t> Hypernyms(const Synset& synset) {
  std::vector<int64_t> offsets;
  for (const SynsetPointer& p : synset.pointers)
    if (p.pos == synset.pos && (p.symbol == "@" || p.symbol == "@i")) offsets.push_back(p.offset);
  return offsets;
}

bool PointsTo(const Synset& from, const Synset& to) {
  return std::ranges::any_of(from.pointers,
                             [&](const SynsetPointer& p) { return p.offset == to.offset && p.pos == to.pos; });
}

// Whether two senses are so near that people would not agree on their difference.
bool AreNear(const Synset& a, const Synset& b) {
  if (a.file == b.file || PointsTo(a, b) || PointsTo(b, a)) return true;
  const std::vector<int64_t> of_b = Hypernyms(b);
  return std::ranges::any_of(Hypernyms(a), [&](int64_t h) { return std::ranges::find(of_b, h) != of_b.end(); });
}

// The pairs of one part of speech.
class PairMaker {
 public:
  PairMaker(std::vector<Synset> synsets, IrregularForms irregular, TaskExamples* out)
      : synsets_(std::move(synsets)), irregular_(std::move(irregular)), out_(*out) {}

  // `seen`: sentences used already, of any part of speech.
  void Make(std::unordered_set<std::string>* seen) {
    std::vector<Use> uses = FindUses(seen);
    const auto by_lemma = AssignToLemmas(uses);
    for (const auto& [lemma, indices] : by_lemma) MakePairs(lemma, indices, uses);
  }

 private:
  std::vector<Use> FindUses(std::unordered_set<std::string>* seen) {
    std::vector<Use> uses;
    for (size_t s = 0; s < synsets_.size(); ++s)
      for (const std::string& sentence : synsets_[s].examples) {
        Use use{s, sentence, {}};
        for (const std::string& lemma : synsets_[s].lemmas)
          if (UsesLemma(sentence, lemma, synsets_[s].pos, irregular_)) use.lemmas.push_back(lemma);
        if (use.lemmas.empty())
          ++out_.counts["sentences_without_lemma"];
        else if (!seen->insert(sentence).second)
          ++out_.counts["repeated_sentences"];
        else
          uses.push_back(std::move(use));
      }
    return uses;
  }

  // Each sentence goes to the lemma with the most senses that have sentences: such lemmas make the most pairs.
  static std::map<std::string, std::vector<size_t>> AssignToLemmas(const std::vector<Use>& uses) {
    std::unordered_map<std::string, std::set<size_t>> senses;
    for (const Use& use : uses)
      for (const std::string& lemma : use.lemmas) senses[lemma].insert(use.synset);
    std::map<std::string, std::vector<size_t>> by_lemma;
    for (size_t u = 0; u < uses.size(); ++u) {
      const auto more_senses = [&](const std::string& a, const std::string& b) {
        return senses[a].size() != senses[b].size() ? senses[a].size() > senses[b].size() : a < b;
      };
      by_lemma[*std::ranges::min_element(uses[u].lemmas, more_senses)].push_back(u);
    }
    return by_lemma;
  }

  void MakePairs(const std::string& lemma, const std::vector<size_t>& indices, const std::vector<Use>& uses) {
    std::vector<TaskExample> kinds[2];
    for (size_t i = 0; i < indices.size(); ++i)
      for (size_t j = i + 1; j < indices.size(); ++j) {
        const Use &a = uses[indices[i]], &b = uses[indices[j]];
        if (a.synset == b.synset)
          kinds[kSame].push_back(Pair(lemma, a, b, kSame));
        else if (AreNear(synsets_[a.synset], synsets_[b.synset]))
          ++out_.counts["pairs_of_near_senses"];
        else
          kinds[kDifferent].push_back(Pair(lemma, a, b, kDifferent));
      }
    auto& split = IsValidationLemma(lemma) ? out_.valid : out_.train;
    for (std::vector<TaskExample>& pairs : kinds) {
      std::ranges::sort(pairs, {}, [](const TaskExample& e) { return TextHash(e.input, kPairSalt); });
      if (pairs.size() > kPairsPerKind) pairs.resize(kPairsPerKind);
      std::ranges::move(pairs, std::back_inserter(split));
    }
  }

  static TaskExample Pair(const std::string& lemma, const Use& a, const Use& b, int32_t label) {
    const bool swapped = TextHash(a.sentence, kPairSalt) > TextHash(b.sentence, kPairSalt);
    const Use &first = swapped ? b : a, &second = swapped ? a : b;
    return {"same sense: " + lemma + " first: " + first.sentence + " second: " + second.sentence, label, {lemma}};
  }

  std::vector<Synset> synsets_;
  IrregularForms irregular_;
  TaskExamples& out_;
};

class WordnetWic : public Task {
 public:
  std::string_view name() const override { return "wordnet_wic"; }
  std::string_view benchmark() const override { return "wordnet"; }
  std::span<const std::string_view> labels() const override { return kSenseLabels; }
  int numerics_version() const override { return 1; }
  std::span<const std::string_view> files() const override { return kSenseFiles; }
  std::span<const std::string_view> optional_files() const override { return kOptionalFiles; }

  bool can_skip_bad_rows() const override { return false; }
  common::Result<TaskExamples> Read(const TaskFiles& files, BadRows) const override {
    TaskExamples examples;
    std::unordered_set<std::string> seen;
    for (size_t i = 0; i < kSenseFiles.size(); ++i) {
      const std::string data(kSenseFiles[i]), exceptions(kOptionalFiles[i]);
      ALLO_ASSIGN_OR_RETURN(std::vector<Synset> synsets, ReadSynsets(files.at(data), data));
      IrregularForms irregular;
      if (files.contains(exceptions)) {
        ALLO_ASSIGN_OR_RETURN(irregular, ReadIrregularForms(files.at(exceptions), exceptions));
      }
      PairMaker(std::move(synsets), std::move(irregular), &examples).Make(&seen);
    }
    examples.counts["train_left_out_to_balance"] = BalanceLabels(kSenseLabels.size(), &examples.train);
    examples.counts["valid_left_out_to_balance"] = BalanceLabels(kSenseLabels.size(), &examples.valid);
    return examples;
  }
};

}  // namespace

const Task& WordnetWicTask() {
  static const WordnetWic task;
  return task;
}

}  // namespace allometry::trainer
