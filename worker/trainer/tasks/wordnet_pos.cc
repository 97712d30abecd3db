// wordnet_pos: which part of speech does a definition define? "part of speech: <definition>" -> noun, verb, adjective
// or adverb.
//
// One example a synonym set, examples of use left out. A set is in validation if all its lemmas are, in training if
// none is, else left out: so no lemma stands on both sides. Of equal definitions the first counts. All labels are
// equally frequent.
#include <array>
#include <string>
#include <unordered_set>

#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tasks/wordnet.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 4> kPosLabels = {"noun", "verb", "adjective", "adverb"};
constexpr std::array<std::string_view, 4> kPosFiles = {"data.noun", "data.verb", "data.adj", "data.adv"};

// 0: training, 1: validation, 2: lemmas of both.
int SideOf(const Synset& synset) {
  size_t valid = 0;
  for (const std::string& lemma : synset.lemmas) valid += IsValidationLemma(lemma);
  return valid == 0 ? 0 : valid == synset.lemmas.size() ? 1 : 2;
}

class WordnetPos : public Task {
 public:
  std::string_view name() const override { return "wordnet_pos"; }
  std::string_view benchmark() const override { return "wordnet"; }
  std::span<const std::string_view> labels() const override { return kPosLabels; }
  int numerics_version() const override { return 1; }
  std::span<const std::string_view> files() const override { return kPosFiles; }

  bool can_skip_bad_rows() const override { return false; }
  common::Result<TaskExamples> Read(const TaskFiles& files, BadRows) const override {
    TaskExamples examples;
    std::unordered_set<std::string> seen;
    for (size_t label = 0; label < kPosFiles.size(); ++label) {
      const std::string file(kPosFiles[label]);
      ALLO_ASSIGN_OR_RETURN(std::vector<Synset> synsets, ReadSynsets(files.at(file), file));
      for (Synset& synset : synsets) Add(std::move(synset), static_cast<int32_t>(label), &seen, &examples);
    }
    examples.counts["train_left_out_to_balance"] = BalanceLabels(kPosLabels.size(), &examples.train);
    examples.counts["valid_left_out_to_balance"] = BalanceLabels(kPosLabels.size(), &examples.valid);
    return examples;
  }

 private:
  static void Add(Synset synset, int32_t label, std::unordered_set<std::string>* seen, TaskExamples* examples) {
    if (synset.definition.empty()) {
      ++examples->counts["without_definition"];
      return;
    }
    if (!seen->insert(synset.definition).second) {
      ++examples->counts["repeated_definition"];
      return;
    }
    const int side = SideOf(synset);
    if (side == 2) {
      ++examples->counts["lemmas_of_both_splits"];
      return;
    }
    auto& split = side == 1 ? examples->valid : examples->train;
    split.push_back({"part of speech: " + synset.definition, label, std::move(synset.lemmas)});
  }
};

}  // namespace

const Task& WordnetPosTask() {
  static const WordnetPos task;
  return task;
}

}  // namespace allometry::trainer
