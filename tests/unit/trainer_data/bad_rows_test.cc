#include <gmock/gmock.h>

#include "tests/unit/trainer_data/task_fixture.h"
#include "worker/trainer/tasks/jsonl_task.h"
#include "worker/trainer/tasks/task.h"

// Tasks that leave out what they cannot read: the good rows come as if the bad ones were not there, and are counted.
namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class SkippedRows : public TaskFixture {
 protected:
  TaskExamples Skipping(const Task& task, const Content& content) {
    auto examples = task.Read(Files(content), BadRows::kSkip);
    if (examples) return *examples;
    ADD_FAILURE() << examples.error().message;
    return {};
  }
};

TEST_F(SkippedRows, OfGlue) {
  const std::string good = "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n";
  const std::string bad = "1\tA.\tB.\n2\tA.\tB.\tx\tentailment\n3\tA.\tB.\tmaybe\n4\tA\xFF.\tB.\tentailment\n";
  const std::string last = "5\tC.\tD.\tnot_entailment\n";
  const TaskExamples examples = Skipping(GlueRteTask(), {{"train.tsv", good + bad + last}, {"dev.tsv", good}});
  EXPECT_THAT(Shown(GlueRteTask(), examples.train),
              ElementsAre("rte sentence1: A. sentence2: B. -> entailment [0]",
                          "rte sentence1: C. sentence2: D. -> not_entailment [5]"));
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_bad_rows", 4)));
}

TEST_F(SkippedRows, AWrongHeaderIsStillAnError) {
  const std::string file = "index\tpremise\tsentence2\tlabel\n0\tA.\tB.\tentailment\n";
  const auto examples = GlueRteTask().Read(Files({{"train.tsv", file}, {"dev.tsv", file}}), BadRows::kSkip);
  ASSERT_FALSE(examples.ok());
  EXPECT_THAT(examples.error().message, HasSubstr("has no column 'sentence1'"));
}

TEST_F(SkippedRows, OfSuperglueLeaveNothingOfThemselves) {
  const auto row = [](const std::string& idx, const std::string& text, const std::string& second_label) {
    return R"({"idx": )" + idx + R"(, "passage": {"text": ")" + text +
           R"(", "questions": [{"question": "E", "idx": 0, "answers": []}, {"question": "Q", "idx": 1, "answers": )" +
           R"([{"text": "A", "idx": 0, "label": 0}, {"text": "B", "idx": 1)" + second_label + "}]}]}}\n";
  };
  const std::string good = R"(, "label": 1)";
  const std::string file = row("0", "S", good) + row("1", "T", "") + "[1]\n{\n" + row("2", "U", good);
  const TaskExamples examples = Skipping(SuperglueMultircTask(), {{"train.jsonl", file}, {"val.jsonl", file}});
  std::vector<std::string> ids;
  std::vector<std::pair<int, int>> groups;
  for (const TaskExample& e : examples.valid) {
    ids.push_back(e.id);
    groups.emplace_back(e.question, e.passage);
  }
  EXPECT_THAT(ids, ElementsAre("0/1/0", "0/1/1", "2/1/0", "2/1/1"));
  EXPECT_THAT(groups, ElementsAre(Pair(0, 0), Pair(0, 0), Pair(1, 1), Pair(1, 1)));
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_bad_rows", 3), Pair("train_questions_without_options", 2),
                                           Pair("valid_bad_rows", 3), Pair("valid_questions_without_options", 2)));
}

TEST_F(SkippedRows, OfSquadAreQuestionsOrParagraphs) {
  const auto question = [](const char* id, const common::Json& answers) {
    return common::Json{{"id", id}, {"question", "Q?"}, {"answers", answers}};
  };
  const common::Json answer = {{{"text", "A"}}};
  const common::Json paragraphs = {
      {{"context", "C"}, {"qas", {question("a", answer), question("b", common::Json::array())}}},
      {{"qas", {question("c", answer)}}},
      {{"context", "D"}, {"qas", {question("d", answer)}}}};
  const std::string file = common::Json{{"data", {{{"paragraphs", paragraphs}}}}}.dump();
  const TaskExamples examples = Skipping(SquadV11Task(), {{"train-v1.1.json", file}, {"dev-v1.1.json", file}});
  EXPECT_THAT(Shown(SquadV11Task(), examples.valid),
              ElementsAre("question: Q? context: C -> A [a]", "question: Q? context: D -> A [d]"));
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_bad_rows", 2), Pair("valid_bad_rows", 2)));
}

TEST_F(SkippedRows, OfAnOwnTaskKeepTheNumbersOfTheOthers) {
  const auto task = *MakeJsonlTask({.name = "own", .train_file = "t.jsonl", .valid_file = "v.jsonl"});
  const std::string choices = R"({"input": "i", "choices": ["x", "y"], "label": 1})";
  const TaskExamples examples = Skipping(*task, {{"t.jsonl", R"({"input": "i", "target": ""})"
                                                             "\n" +
                                                                 choices + "\n{\n" + choices + "\n"},
                                                 {"v.jsonl", choices}});
  EXPECT_THAT(Shown(*task, examples.train), ElementsAre("i -> y [1]", "i -> y [2]"))
      << "a bad row does not say of which kind the others are";
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_bad_rows", 2)));
}

TEST_F(SkippedRows, AreAnErrorUnlessAskedFor) {
  const auto task = *MakeJsonlTask({.name = "own", .train_file = "t.jsonl", .valid_file = "v.jsonl"});
  ExpectRefused(*task, {{"t.jsonl", "{\n"}, {"v.jsonl", ""}}, "own 't.jsonl' line 1: not valid JSON");
  EXPECT_FALSE(WordnetPosTask().can_skip_bad_rows());
}

}  // namespace
}  // namespace allometry::trainer
