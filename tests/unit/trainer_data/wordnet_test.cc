#include "worker/trainer/tasks/wordnet.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "tests/unit/trainer_data/data_fixture.h"
#include "tests/unit/trainer_data/made_up_wordnet.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ParseSynset, ReadsEveryField) {
  const auto synset = ParseSynset(
      "00001740 29 v 02 Take_a_breath 0 respire 1 002 @ 00005041 v 0000 + 03110323 a 0301 01 + 02 00 | draw \"in\" "
      "air; expel it; "
      "\"I can breathe\"; \"The patient is respiring\"- a book  ");
  ASSERT_TRUE(synset.ok()) << synset.error().message;
  EXPECT_EQ(synset->offset, 1740);
  EXPECT_EQ(synset->file, 29);
  EXPECT_EQ(synset->pos, 'v');
  EXPECT_THAT(synset->lemmas, ElementsAre("take a breath", "respire"));
  ASSERT_EQ(synset->pointers.size(), 2u);
  EXPECT_EQ(synset->pointers[0].symbol, "@");
  EXPECT_EQ(synset->pointers[0].offset, 5041);
  EXPECT_EQ(synset->pointers[1].pos, 'a');
  EXPECT_EQ(synset->definition, "draw \"in\" air; expel it");
  EXPECT_THAT(synset->examples, ElementsAre("I can breathe", "The patient is respiring"));
}

TEST(ParseSynset, SatellitesAndMarkersAreAdjectives) {
  const auto synset = ParseSynset("00015854 00 s 01 galore(ip) 2 000 | in great numbers  ");
  ASSERT_TRUE(synset.ok());
  EXPECT_EQ(synset->pos, 'a');
  EXPECT_THAT(synset->lemmas, ElementsAre("galore"));
  EXPECT_THAT(synset->examples, IsEmpty());
}

TEST(ParseSynset, WordsAreCountedInHexadecimal) {
  std::string line = "00000001 03 n 0a";
  for (int i = 0; i < 10; ++i) line += " w" + std::to_string(i) + " 0";
  EXPECT_EQ(ParseSynset(line + " 000 | x")->lemmas.size(), 10u);
}

TEST(ParseSynset, WhatIsNoSynsetIsRefused) {
  for (const char* line : {"", "no bar", "x 03 n 01 w 0 000 | g", "00000001 03 q 01 w 0 000 | g",
                           "00000001 03 n 02 w 0 000 | g", "00000001 03 n 01 w 0 001 @ 1 | g"})
    EXPECT_FALSE(ParseSynset(line).ok()) << line;
}

TEST(UsesLemma, FindsInflectionsAsWholeWords) {
  const IrregularForms irregular = {{"go", {"went", "gone"}}, {"child", {"children"}}};
  EXPECT_TRUE(UsesLemma("She stopped at once.", "stop", 'v', irregular));
  EXPECT_TRUE(UsesLemma("making hay", "make", 'v', irregular));
  EXPECT_TRUE(UsesLemma("He tries.", "try", 'v', irregular));
  EXPECT_TRUE(UsesLemma("They WENT home", "go", 'v', irregular));
  EXPECT_TRUE(UsesLemma("gone over the plan", "go over", 'v', irregular));
  EXPECT_TRUE(UsesLemma("two church mice and boxes", "box", 'n', irregular));
  EXPECT_TRUE(UsesLemma("the children's room", "child", 'n', irregular));
  EXPECT_TRUE(UsesLemma("Many ice creams.", "ice cream", 'n', irregular));
  EXPECT_FALSE(UsesLemma("a stopwatch", "stop", 'v', irregular));
  EXPECT_FALSE(UsesLemma("an unstoppable force", "stop", 'v', irregular));
  EXPECT_FALSE(UsesLemma("he was making", "box", 'n', irregular));
  EXPECT_FALSE(UsesLemma("", "box", 'n', irregular));
}

TEST(BalanceLabels, EveryPrefixIsBalanced) {
  std::vector<TaskExample> examples;
  for (int i = 0; i < 100; ++i) examples.push_back({"input " + std::to_string(i), i < 70 ? 0 : i < 90 ? 1 : 2, {}});
  EXPECT_EQ(BalanceLabels(3, &examples), 70);
  ASSERT_EQ(examples.size(), 30u);
  int counts[3] = {};
  for (const TaskExample& example : examples) {
    ++counts[example.label];
    EXPECT_LE(*std::max_element(counts, counts + 3) - *std::min_element(counts, counts + 3), 1);
  }
}

// No lemma, input or sentence of one split may stand in the other.
void ExpectNoLeak(const TaskExamples& examples) {
  std::set<std::string> train_lemmas, train_inputs;
  for (const TaskExample& e : examples.train) {
    train_lemmas.insert(e.lemmas.begin(), e.lemmas.end());
    EXPECT_TRUE(train_inputs.insert(e.input).second) << "twice: " << e.input;
  }
  ASSERT_FALSE(train_lemmas.empty());
  ASSERT_FALSE(examples.valid.empty());
  for (const TaskExample& e : examples.valid) {
    EXPECT_FALSE(e.lemmas.empty());
    EXPECT_FALSE(train_inputs.contains(e.input)) << e.input;
    for (const std::string& lemma : e.lemmas) EXPECT_FALSE(train_lemmas.contains(lemma)) << lemma;
  }
}

std::set<std::string> SentencesOf(const std::vector<TaskExample>& examples) {
  std::set<std::string> sentences;
  for (const TaskExample& e : examples) {
    const size_t first = e.input.find(" first: "), second = e.input.find(" second: ");
    EXPECT_TRUE(first != std::string::npos && second != std::string::npos) << e.input;
    sentences.insert(e.input.substr(first + 8, second - first - 8));
    sentences.insert(e.input.substr(second + 9));
  }
  return sentences;
}

void ExpectNoSharedSentence(const TaskExamples& examples) {
  const std::set<std::string> train = SentencesOf(examples.train);
  for (const std::string& s : SentencesOf(examples.valid)) EXPECT_FALSE(train.contains(s)) << s;
}

void ExpectBalanced(const std::vector<TaskExample>& examples, size_t labels) {
  std::vector<size_t> counts(labels, 0);
  for (const TaskExample& e : examples) ++counts[static_cast<size_t>(e.label)];
  for (size_t count : counts) EXPECT_EQ(count * labels, examples.size());
}

class WordnetTasks : public DataFixture {
 protected:
  std::map<std::string, fs::path> MadeUp() {
    return {{"data.noun", Write("data.noun", MadeUpSynsets('n', 1, 3))},
            {"data.verb", Write("data.verb", MadeUpSynsets('v', 2, 3))},
            {"data.adj", Write("data.adj", MadeUpSynsets('s', 3, 1))},
            {"data.adv", Write("data.adv", MadeUpSynsets('r', 4, 1))}};
  }
};

TEST_F(WordnetTasks, PartOfSpeechOfInventedWords) {
  const auto examples = WordnetPosTask().Read(MadeUp());
  ASSERT_TRUE(examples.ok()) << examples.error().message;
  ExpectNoLeak(*examples);
  ExpectBalanced(examples->train, 4);
  ExpectBalanced(examples->valid, 4);
  EXPECT_GT(examples->counts.at("lemmas_of_both_splits"), 0);
  for (const TaskExample& e : examples->train) {
    EXPECT_TRUE(e.input.starts_with("part of speech: the ")) << e.input;
    EXPECT_EQ(e.input.find('"'), std::string::npos) << "examples of use would tell the word";
    // The invented definitions name their file: "of n17".
    EXPECT_THAT(e.input, HasSubstr(std::string(" of ") + "nvsr"[e.label])) << e.input;
  }
}

TEST_F(WordnetTasks, SensesOfInventedWords) {
  const auto examples = WordnetWicTask().Read(MadeUp());
  ASSERT_TRUE(examples.ok()) << examples.error().message;
  ExpectNoLeak(*examples);
  ExpectNoSharedSentence(*examples);
  ExpectBalanced(examples->train, 2);
  ExpectBalanced(examples->valid, 2);
  for (const TaskExample& e : examples->train) {
    // Sentences end in the number of their sense.
    const std::string first = e.input.substr(0, e.input.find(" second: "));
    const bool same = first.substr(first.rfind(' ')) == e.input.substr(e.input.rfind(' '));
    EXPECT_EQ(same, e.label == 0) << e.input;
    EXPECT_THAT(e.input, HasSubstr("same sense: " + e.lemmas[0] + " first: "));
  }
}

TEST_F(WordnetTasks, NearSensesMakeNoPairs) {
  const auto synset = [](const char* head, const char* example) {
    return std::string(head) + " | x " + example + "; \"we walk " + example + "\"  \n";
  };
  // Sets 1 and 2 share a lexicographer's file, 3 has 1 as hypernym, 4 and 3 share a hypernym; 5 is far from all but 6,
  // which it opposes. Left: 1-4, 1-5, 1-6, 2-3, 2-4, 2-5, 2-6, 3-5, 3-6, 4-5, 4-6, of which three are kept, and no true
  // pair.
  const fs::path verbs =
      Write("data.verb", synset("00000001 29 v 01 walk 0 000", "one") + synset("00000002 29 v 01 walk 1 000", "two") +
                             synset("00000003 30 v 01 walk 2 002 @ 00000001 v 0000 @ 00000009 v 0000", "three") +
                             synset("00000004 31 v 01 walk 3 001 @ 00000009 v 0000", "four") +
                             synset("00000005 32 v 01 walk 4 001 ! 00000006 v 0101", "five") +
                             synset("00000006 33 v 01 walk 5 000", "six"));
  const fs::path nouns = Write("data.noun", "00000001 03 n 01 x 0 000 | nothing  \n");
  const auto examples = WordnetWicTask().Read({{"data.noun", nouns}, {"data.verb", verbs}});
  ASSERT_TRUE(examples.ok()) << examples.error().message;
  EXPECT_EQ(examples->counts.at("pairs_of_near_senses"), 4);
  EXPECT_EQ(examples->counts.at("train_left_out_to_balance") + examples->counts.at("valid_left_out_to_balance"), 3);
}

TEST_F(WordnetTasks, ABadLineIsNamed) {
  auto files = MadeUp();
  std::ofstream(files["data.verb"], std::ios::app) << "rubbish\n";
  for (const Task* task : {&WordnetPosTask(), &WordnetWicTask()}) {
    const auto examples = task->Read(files);
    ASSERT_FALSE(examples.ok());
    EXPECT_EQ(examples.error().code, common::ErrorCode::kDataLoss);
    EXPECT_THAT(examples.error().message, HasSubstr("data.verb:182: "));
  }
  files["data.noun"] = Write("empty", "");
  EXPECT_THAT(WordnetPosTask().Read(files).error().message, HasSubstr("no synonym set"));
}

TEST_F(WordnetTasks, TheRealWordnet) {
  const fs::path root = "/usr/share/wordnet";
  if (!fs::exists(root / "data.noun")) GTEST_SKIP() << "Debian's package wordnet-base is not installed";
  for (const Task* task : {&WordnetPosTask(), &WordnetWicTask()}) {
    std::map<std::string, fs::path> files;
    for (std::string_view name : task->files()) files[std::string(name)] = root / name;
    for (std::string_view name : task->optional_files()) files[std::string(name)] = root / name;
    const auto examples = task->Read(files);
    ASSERT_TRUE(examples.ok()) << examples.error().message;
    ExpectNoLeak(*examples);
    ExpectBalanced(examples->train, task->labels().size());
    ExpectBalanced(examples->valid, task->labels().size());
    if (task->name() == "wordnet_wic") ExpectNoSharedSentence(*examples);
    EXPECT_GT(examples->train.size(), 3'000u) << task->name();
    EXPECT_GT(examples->valid.size(), 700u) << task->name();
    std::printf("%s: %zu training and %zu validation examples\n", std::string(task->name()).c_str(),
                examples->train.size(), examples->valid.size());
  }
}

TEST(TaskRegistry, UnknownNamesAreAnsweredWithTheNearest) {
  EXPECT_EQ((*FindTask("wordnet_wic"))->name(), "wordnet_wic");
  const auto unknown = FindTask("wordnet_poss");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, common::ErrorCode::kNotFound);
  EXPECT_THAT(unknown.error().message, HasSubstr("did you mean 'wordnet_pos'"));
}

}  // namespace
}  // namespace allometry::trainer
