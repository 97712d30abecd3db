#include <gmock/gmock.h>

#include "tests/unit/trainer_data/task_fixture.h"
#include "worker/trainer/tasks/t5_text.h"
#include "worker/trainer/tasks/task.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const char kTrain[] = "train-v1.1.json", kDev[] = "dev-v1.1.json";

std::string File(const common::Json& paragraphs) {
  return common::Json{{"version", "1.1"}, {"data", {{{"title", "T"}, {"paragraphs", paragraphs}}}}}.dump(1);
}

common::Json Question(const std::string& id, const std::string& question, const std::vector<std::string>& answers) {
  common::Json list = common::Json::array();
  for (const std::string& answer : answers) list.push_back({{"text", answer}, {"answer_start", 0}});
  return {{"id", id}, {"question", question}, {"answers", list}};
}

class SquadFile : public TaskFixture {
 protected:
  common::Json one_ = {{{"context", "Some\ncontext."}, {"qas", {Question("testid", "A  question?", {"The answer."})}}}};
};

TEST_F(SquadFile, ReadsQuestionsContextsAndAllAnswers) {
  const common::Json dev = {{{"context",
                              "It cost $12, or \xE2\x82\xAC"
                              "9."},
                             {"qas",
                              {Question("a", "How much?",
                                        {"$12",
                                         "\xE2\x82\xAC"
                                         "9",
                                         "$12"}),
                               Question("b", "What?", {"It"})}}},
                            {{"context", "C"}, {"qas", {Question("c", "Q", {"C"})}}}};
  const Task& task = SquadV11Task();
  const TaskExamples examples = Read(task, {{kTrain, File(one_)}, {kDev, File(dev)}});
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("question: A question? context: Some context. -> The answer. [testid]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("question: How much? context: It cost $12, or \xE2\x82\xAC"
                                                       "9. -> $12 [a]",
                                                       "question: What? context: It cost $12, or \xE2\x82\xAC"
                                                       "9. -> It [b]",
                                                       "question: Q context: C -> C [c]"));
  EXPECT_THAT(examples.valid[0].references, ElementsAre("$12",
                                                        "\xE2\x82\xAC"
                                                        "9"));
  EXPECT_THAT(examples.valid[0].choices, IsEmpty());
  EXPECT_EQ(examples.valid[0].label, -1);
  EXPECT_EQ(examples.valid[0].passage, 0);
  EXPECT_EQ(examples.valid[1].passage, 0);
  EXPECT_EQ(examples.valid[2].passage, 1);
}

TEST_F(SquadFile, PadsPunctuationAsT5IfAsked) {
  const Task& task = SquadV11Task(true);
  const common::Json dev = {
      {{"context", "C"}, {"qas", {Question("a", "Q", {"(1845-1986)", "( 1845 - 1986 )", "$12"})}}}};
  const TaskExamples examples = Read(task, {{kTrain, File(one_)}, {kDev, File(dev)}});
  // The example of T5's own test of this.
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("question: A question ? context: Some context .  -> The answer .  [testid]"));
  EXPECT_THAT(examples.valid[0].references, ElementsAre(" ( 1845 - 1986 ) ", " $ 12"));
  EXPECT_EQ(task.name(), SquadV11Task().name());
}

TEST(PadPunctuationAsT5, PadsWhatRe2CallsNoWord) {
  EXPECT_EQ(PadPunctuationAsT5("\"This  is a string with \"punctuation (1845-1986) \"."),
            " \" This is a string with \" punctuation ( 1845 - 1986 ) \" . ");
  EXPECT_EQ(PadPunctuationAsT5("a_b c9"), "a_b c9");
  EXPECT_EQ(PadPunctuationAsT5("caf\xC3\xA9s"), "caf \xC3\xA9 s") << "RE2's \\W knows ASCII letters only";
  EXPECT_EQ(PadPunctuationAsT5(""), "");
  EXPECT_EQ(CollapseBlanks(" a\t\n b\r\n"), " a b ");
}

TEST_F(SquadFile, WhatIsNotSquadIsRefused) {
  const auto refuse = [&](const std::string& train, const std::string& message) {
    ExpectRefused(SquadV11Task(), {{kTrain, train}, {kDev, File(one_)}}, "squad 'train-v1.1.json'" + message);
  };
  common::Json bad = one_;
  bad[0]["qas"][0]["answers"] = common::Json::array();
  refuse(File(bad), ": data[0]: paragraphs[0]: qas[0]: the question has no answers; is this SQuAD 2.0?");
  bad = one_;
  bad[0]["qas"][0].erase("question");
  refuse(File(bad), ": data[0]: paragraphs[0]: qas[0]: there is no 'question'");
  bad = one_;
  bad[0]["context"] = 3;
  refuse(File(bad), ": data[0]: paragraphs[0]: 'context' should be a text");
  refuse("{}", ": there is no 'data'");
  refuse("[]", ": there is no 'data'");
  const std::string whole = File(one_);
  refuse(whole.substr(0, whole.size() / 2), ": not valid JSON: line ");
  std::string torn = whole;
  torn[torn.find("answer.")] = '\xFF';
  const auto line = 1 + std::count(torn.begin(), torn.begin() + static_cast<long>(torn.find('\xFF')), '\n');
  refuse(torn, " line " + std::to_string(line) + ": not UTF-8");
  ExpectRefused(SquadV11Task(), {{kTrain, whole}}, "task squad was not given its file 'dev-v1.1.json'",
                common::ErrorCode::kNotFound);
}

}  // namespace
}  // namespace allometry::trainer
