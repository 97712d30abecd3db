#include <gmock/gmock.h>

#include "tests/unit/trainer_data/task_fixture.h"
#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tasks/wsc_referent.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

class Superglue : public TaskFixture {
 protected:
  TaskExamples ReadBoth(const Task& task, const std::string& train, const std::string& valid) {
    return Read(task, {{"train.jsonl", train}, {"val.jsonl", valid}});
  }
};

TEST_F(Superglue, Boolq) {
  const Task& task = SuperglueBoolqTask();
  const std::string row = R"({"question": "is it so", "passage": "It is.", "idx": 3, "label": )";
  const TaskExamples examples = ReadBoth(
      task,
      row + "true}\n" + R"({"question": "q", "passage": "P \u00e9.", "idx": 4, "label": false})" + "\n" + row + "1}",
      row + "false}\n");
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("boolq passage: It is. question: is it so -> True [3]",
                                                       "boolq passage: P \xC3\xA9. question: q -> False [4]",
                                                       "boolq passage: It is. question: is it so -> True [3]"));
  EXPECT_EQ(examples.train[0].passage, 0);
  EXPECT_EQ(examples.train[1].passage, 1);
  EXPECT_EQ(examples.train[2].passage, 0) << "equal passages are one";
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("boolq passage: It is. question: is it so -> False [3]"));
}

TEST_F(Superglue, Cb) {
  const Task& task = SuperglueCbTask();
  const TaskExamples examples =
      ReadBoth(task, R"({"premise": "Did he help?", "hypothesis": "he helped", "label": "contradiction", "idx": 0})",
               R"({"premise": "P", "hypothesis": "H", "label": "neutral", "idx": 7})");
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("cb hypothesis: he helped premise: Did he help? -> contradiction [0]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("cb hypothesis: H premise: P -> neutral [7]"));
  EXPECT_THAT(task.labels(), ElementsAre("entailment", "contradiction", "neutral"));
  EXPECT_THAT(task.metrics(), ElementsAre("f1_macro", "accuracy"));
}

TEST_F(Superglue, Copa) {
  const Task& task = SuperglueCopaTask();
  const std::string row =
      R"({"premise": "The man turned on the faucet.", "choice1": "The toilet filled.", "choice2": "Water flowed.", )"
      R"("question": "effect", "idx": 0, "label": )";
  const TaskExamples examples = ReadBoth(task, row + "1}", row + "0}");
  const std::string input =
      "copa choice1: The toilet filled. choice2: Water flowed. premise: The man turned on the faucet. question: effect";
  EXPECT_THAT(Shown(task, examples.train), ElementsAre(input + " -> choice2 [0]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre(input + " -> choice1 [0]"));
  EXPECT_THAT(examples.train[0].choices, IsEmpty()) << "the labels are the choices";
  ExpectRefused(task, {{"train.jsonl", row + "2}"}, {"val.jsonl", ""}}, "line 1: the label 2 is neither 0 nor 1");
}

TEST_F(Superglue, MultircHasAnExampleAnOption) {
  const Task& task = SuperglueMultircTask();
  const std::string rows =
      R"({"idx": 5, "version": 1.1, "passage": {"text": "<b>Sent 1: </b>A cat ate.<br><b>Sent 2: </b>A dog slept.", )"
      R"("questions": [{"question": "Who ate?", "idx": 8, "answers": [{"text": "the <b>cat</b>", "idx": 30, "label": 1}, )"
      R"({"text": "the dog", "idx": 31, "label": 0}]}, )"
      R"({"question": "Who slept?", "idx": 9, "answers": [{"text": "the dog", "idx": 32, "label": 1}]}]}})"
      "\n"
      R"({"idx": 6, "passage": {"text": "T", "questions": [{"question": "Q", "idx": 10, "answers": []}, )"
      R"({"question": "Q", "idx": 11, "answers": [{"text": "A", "idx": 33, "label": 0}]}]}})";
  const TaskExamples examples = ReadBoth(task, rows, rows);
  EXPECT_THAT(
      Shown(task, examples.valid),
      ElementsAre(
          "multirc question: Who ate? answer: the cat paragraph: Sent 1: A cat ate. Sent 2: A dog slept. -> True "
          "[5/8/30]",
          "multirc question: Who ate? answer: the dog paragraph: Sent 1: A cat ate. Sent 2: A dog slept. -> False "
          "[5/8/31]",
          "multirc question: Who slept? answer: the dog paragraph: Sent 1: A cat ate. Sent 2: A dog slept. -> True "
          "[5/9/32]",
          "multirc question: Q answer: A paragraph: T -> False [6/11/33]"));
  std::vector<std::pair<int32_t, int32_t>> groups;
  for (const TaskExample& e : examples.valid) groups.emplace_back(e.question, e.passage);
  EXPECT_THAT(groups, ElementsAre(Pair(0, 0), Pair(0, 0), Pair(1, 0), Pair(2, 1)));
  EXPECT_THAT(examples.counts,
              ElementsAre(Pair("train_questions_without_options", 1), Pair("valid_questions_without_options", 1)));
  EXPECT_THAT(task.metrics(), ElementsAre("f1a", "exact_match"));
}

TEST_F(Superglue, MultircMistakesAreNamedByTheirPlace) {
  ExpectRefused(SuperglueMultircTask(),
                {{"train.jsonl", R"({"idx": 5, "passage": {"text": "T", "questions": [{"question": "Q", "idx": 1, )"
                                 R"("answers": [{"text": "A", "idx": 0, "label": 0}, {"text": "B", "idx": 1}]}]}})"},
                 {"val.jsonl", ""}},
                "superglue_multirc 'train.jsonl' line 1: passage: questions[0]: answers[1]: 'label' should be there");
}

const char kRecordRow[] =
    R"({"source": "CNN", "idx": 2, "passage": {"text": "Zo\u00eb met Bob\n@highlight\nBob said \"Hi.\"\n@highlight\n)"
    R"(Ann sang.\n@highlight\nThe end", "entities": [{"start": 8, "end": 10}, {"start": 0, "end": 2}, )"
    R"({"start": 23, "end": 25}, {"start": 49, "end": 51}]}, "qas": [{"query": "It was @placeholder .", "idx": 40, )"
    R"("answers": [{"start": 23, "end": 25, "text": "Bob"}, {"start": 0, "end": 2, "text": "Zo\u00eb"}, )"
    R"({"start": 8, "end": 10, "text": "Bob"}]}, {"query": "Q @placeholder", "idx": 41, "answers": [{"text": "Eve"}]}]})";

TEST_F(Superglue, RecordTrainsOnEveryAnswer) {
  const Task& task = SuperglueRecordTask();
  const TaskExamples examples = ReadBoth(task, kRecordRow, kRecordRow);
  const std::string rest =
      " entities: Ann, Bob, Zo\xC3\xAB passage: Zo\xC3\xAB met Bob. Bob said \"Hi.\" Ann sang. The end -> ";
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("record query: It was @placeholder ." + rest + "Bob [2/40]",
                          "record query: It was @placeholder ." + rest + "Zo\xC3\xAB [2/40]",
                          "record query: Q @placeholder" + rest + "Eve [2/41]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("record query: It was @placeholder ." + rest + "Bob [2/40]",
                                                       "record query: Q @placeholder" + rest + "Eve [2/41]"));
  EXPECT_THAT(examples.valid[0].references, ElementsAre("Bob", "Zo\xC3\xAB"));
  EXPECT_THAT(examples.valid[0].choices, ElementsAre("Ann", "Bob", "Zo\xC3\xAB"));
  EXPECT_EQ(examples.train[1].label, 2);
  EXPECT_EQ(examples.valid[1].label, -1);
  EXPECT_EQ(examples.valid[1].passage, 0);
  EXPECT_EQ(examples.counts.at("valid_answers_not_among_entities"), 1);
}

TEST_F(Superglue, RecordRefusesWhatDoesNotFit) {
  const auto row = [](const std::string& entity, const std::string& answers) {
    return R"({"idx": 0, "passage": {"text": "\u00e9\u00e9", "entities": [)" + entity +
           R"(]}, "qas": [{"query": "@placeholder", "idx": 0, "answers": [)" + answers + "]}]}";
  };
  const Task& task = SuperglueRecordTask();
  const std::string good = R"({"start": 0, "end": 1})", answer = R"({"text": "x"})";
  EXPECT_EQ(ReadBoth(task, row(good, answer), row(good, answer)).train.size(), 1u);
  ExpectRefused(task, {{"train.jsonl", row(R"({"start": 0, "end": 2})", answer)}, {"val.jsonl", ""}},
                "line 1: passage: entities[0]: the entity from 0 to 2 does not lie in its passage of 2 characters");
  ExpectRefused(task, {{"train.jsonl", row(good, "")}, {"val.jsonl", ""}}, "qas[0]: the query has no answers");
}

TEST_F(Superglue, Rte) {
  const Task& task = SuperglueRteTask();
  const TaskExamples examples =
      ReadBoth(task, R"({"premise": "P", "hypothesis": "H", "label": "not_entailment", "idx": 0})",
               R"({"premise": "P", "hypothesis": "H", "label": "entailment", "idx": 1})");
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("rte hypothesis: H premise: P -> not_entailment [0]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("rte hypothesis: H premise: P -> entailment [1]"));
}

TEST_F(Superglue, Wic) {
  const Task& task = SuperglueWicTask();
  const std::string row =
      R"({"word": "place", "sentence1": "Come to my place.", "sentence2": "A place for it.", "idx": 0, )"
      R"("start1": 11, "start2": 2, "end1": 16, "end2": 7, "version": 1.1, "label": )";
  const TaskExamples examples = ReadBoth(task, row + "false}", row + "true}");
  const std::string input = "wic sentence1: Come to my place. sentence2: A place for it. word: place -> ";
  EXPECT_THAT(Shown(task, examples.train), ElementsAre(input + "False [0]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre(input + "True [0]"));
}

std::string WscRow(const std::string& text, const std::string& referent, int referent_word, const std::string& pronoun,
                   int pronoun_word, bool label, int idx) {
  return common::Json{{"text", text},
                      {"target",
                       {{"span1_text", referent},
                        {"span1_index", referent_word},
                        {"span2_text", pronoun},
                        {"span2_index", pronoun_word}}},
                      {"label", label},
                      {"idx", idx}}
             .dump() +
         "\n";
}

TEST_F(Superglue, WscTrainsOnTheRightReferents) {
  const Task& task = SuperglueWscTask();
  const std::string text = "Mitchell asked Tom if he could lend some money.";
  const std::string rows = WscRow(text, "Tom", 2, "he", 4, true, 1) + WscRow(text, "Mitchell", 0, "he", 4, false, 2);
  const TaskExamples examples = ReadBoth(task, rows, rows);
  const std::string input = "wsc: Mitchell asked Tom if *he* could lend some money. -> ";
  EXPECT_THAT(Shown(task, examples.train), ElementsAre(input + "Tom [1]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre(input + "Tom [1]", input + "Mitchell [2]"));
  EXPECT_EQ(examples.valid[0].label, 1);
  EXPECT_EQ(examples.valid[1].label, 0);
  EXPECT_THAT(examples.valid[1].references, ElementsAre("Mitchell"));
  EXPECT_THAT(examples.valid[1].choices, ElementsAre("Tom", "Mitchell"));
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_rows_with_a_wrong_referent", 1)));
  EXPECT_EQ(task.answer(), AnswerKind::kReferent);
}

TEST_F(Superglue, WscMendsWhatThePublishedFileHasWrong) {
  const Task& task = SuperglueWscTask();
  const std::string rows =
      // The pronoun has punctuation behind it.
      WscRow("The pony threw him over. \"Good for him,\" he said. ", "pony", 1, "him", 7, true, 0) +
      // Its position is one too small.
      WscRow("Some day they might want to use it , but not now.", "they", 2, "it", 6, true, 1) +
      // The referent has another case than the text, a line break, a full stop.
      WscRow("The fish ate the worm . It was tasty.", "The worm", 3, "It", 6, true, 2) +
      WscRow("The lawyer asked him, but he knew.", "the lawyer", 0, "he", 5, true, 3) +
      WscRow("A willow-towered Canopy was it .", "Willow-towered\nCanopy.", 1, "it", 4, true, 4) +
      WscRow("It fell on Tom", "Tom", 3, "It", 0, true, 5);
  EXPECT_THAT(Shown(task, ReadBoth(task, rows, rows).train),
              ElementsAre("wsc: The pony threw him over. \"Good for *him* ,\" he said. -> pony [0]",
                          "wsc: Some day they might want to use *it* , but not now. -> they [1]",
                          "wsc: The fish ate the worm . *It* was tasty. -> the worm [2]",
                          "wsc: The lawyer asked him, but *he* knew. -> The lawyer [3]",
                          "wsc: A willow-towered Canopy was *it* . -> willow-towered Canopy [4]",
                          "wsc: *It* fell on Tom -> Tom [5]"));
}

TEST_F(Superglue, WscWithoutItsPronounIsRefused) {
  ExpectRefused(SuperglueWscTask(),
                {{"train.jsonl", WscRow("Theodore left.", "Theodore", 0, "he", 0, true, 0)}, {"val.jsonl", ""}},
                "superglue_wsc 'train.jsonl' line 1: target: the pronoun 'he' is not in the text");
}

TEST(MatchesReferent, FollowsT5sRule) {
  EXPECT_TRUE(MatchesReferent("turnip", "turnip"));
  EXPECT_TRUE(MatchesReferent("potato", "Potato"));
  EXPECT_TRUE(MatchesReferent("the cat", "cat"));
  EXPECT_TRUE(MatchesReferent("a potato", "my potato"));
  EXPECT_TRUE(MatchesReferent("fuzzy bunny", "fuzzy hungry bunny"));
  EXPECT_TRUE(MatchesReferent("the old fuzzy bunny", "bunny"));
  EXPECT_TRUE(MatchesReferent("Bob's hat", "Bob's hat"));
  EXPECT_TRUE(MatchesReferent("bunny fuzzy", " fuzzy bunny ")) << "the words' order does not count";
  EXPECT_FALSE(MatchesReferent("potato", "turnip"));
  EXPECT_FALSE(MatchesReferent("Bob's hat", "Bob"));
  EXPECT_FALSE(MatchesReferent("fuzzy cat", "fuzzy bunny"));
  EXPECT_FALSE(MatchesReferent("", "bunny"));
  EXPECT_FALSE(MatchesReferent("the", "bunny")) << "a determiner alone names nothing";
  EXPECT_FALSE(MatchesReferent("cat.", "cat")) << "punctuation is part of the word";
}

TEST_F(Superglue, BadRowsAreNamedByFileAndLine) {
  const Task& task = SuperglueRteTask();
  const std::string good = R"({"premise": "P", "hypothesis": "H", "label": "entailment", "idx": 0})"
                           "\n";
  const auto refuse = [&](const std::string& bad, const std::string& message) {
    ExpectRefused(task, {{"train.jsonl", good}, {"val.jsonl", good + bad}},
                  "superglue_rte 'val.jsonl' line 2: " + message);
  };
  refuse(R"({"premise": "P", "label": "entailment", "idx": 0})", "there is no 'hypothesis'");
  refuse(R"({"premise": "P", "hypothesis": 3, "label": "entailment", "idx": 0})", "'hypothesis' should be a text");
  refuse(R"({"premise": "P", "hypothesis": "H", "label": "maybe", "idx": 0})",
         "the label 'maybe' is none of: entailment not_entailment");
  refuse(R"({"premise": "P", "hypothesis": "H", "label": "entailment"})", "'idx' should be there");
  refuse(R"({"premise": "P", "hypothesis": "H", "lab)", "not valid JSON: column 41: syntax error");
  refuse("[1, 2]", "should be a JSON object");
  refuse("{\"premise\": \"\xC3\"}", "not UTF-8");
  ExpectRefused(
      SuperglueWicTask(),
      {{"train.jsonl", R"({"sentence1": "", "sentence2": "", "word": "", "idx": 0, "label": 2})"}, {"val.jsonl", ""}},
      "'label' should be there and true or false");
  ExpectRefused(task, {{"train.jsonl", good}}, "task superglue_rte was not given its file 'val.jsonl'",
                common::ErrorCode::kNotFound);
}

}  // namespace
}  // namespace allometry::trainer
