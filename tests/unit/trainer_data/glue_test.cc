#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/unit/trainer_data/task_fixture.h"
#include "worker/trainer/tasks/stsb_value.h"
#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tasks/task_lines.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class Glue : public TaskFixture {};

const std::string kRteHeader = "index\tsentence1\tsentence2\tlabel\n";
const std::string kQqpHeader = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
const std::string kMrpcHeader = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n";

TEST_F(Glue, Cola) {
  const Task& task = GlueColaTask();
  const TaskExamples examples =
      Read(task, {{"train.tsv", "gj04\t1\t\tThe book \"Emma\" sold.\ngj04\t0\t*\tIs sold book the.\n"},
                  {"dev.tsv", "ks08\t1\t\tKim left."}});
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("cola sentence: The book \"Emma\" sold. -> acceptable [0]",
                                                       "cola sentence: Is sold book the. -> unacceptable [1]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("cola sentence: Kim left. -> acceptable [0]"));
  EXPECT_THAT(examples.counts, IsEmpty());
  EXPECT_THAT(task.metrics(), ElementsAre("matthews"));
}

TEST_F(Glue, ColaWithATabInASentenceIsRefused) {
  ExpectRefused(GlueColaTask(), {{"train.tsv", "gj04\t1\t\tKim\tleft.\n"}, {"dev.tsv", ""}},
                "glue_cola 'train.tsv' line 1: the row has 5 columns, and there should be 4");
}

TEST_F(Glue, Sst2KeepsTheBlankAtTheEnd) {
  const Task& task = GlueSst2Task();
  const TaskExamples examples = Read(task, {{"train.tsv", "sentence\tlabel\nhide new secretions \t0\n"},
                                            {"dev.tsv", "sentence\tlabel\na charming journey . \t1\n"}});
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("sst2 sentence: hide new secretions  -> negative [0]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("sst2 sentence: a charming journey .  -> positive [0]"));
}

TEST_F(Glue, Qqp) {
  const Task& task = GlueQqpTask();
  const std::string rows = "9\t1\t2\t\"Why?\" he asked\tHow?\t0\n10\t3\t4\tWho?\tWho is it?\t1\n";
  const TaskExamples examples = Read(task, {{"train.tsv", kQqpHeader + rows}, {"dev.tsv", kQqpHeader + rows}});
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("qqp question1: \"Why?\" he asked question2: How? -> not_duplicate [9]",
                          "qqp question1: Who? question2: Who is it? -> duplicate [10]"));
  EXPECT_THAT(task.metrics(), ElementsAre("f1", "accuracy"));
}

TEST_F(Glue, QqpLeavesItsBrokenRowsOutAndCountsThem) {
  const std::string good = "9\t1\t2\tWhy?\tHow?\t0\n";
  const TaskExamples examples = Read(
      GlueQqpTask(),
      {{"train.tsv", kQqpHeader + "8\t1\t2\t\"Is it\n\"\tIs it real?\t0\n" + good}, {"dev.tsv", kQqpHeader + good}});
  ASSERT_EQ(examples.train.size(), 1u);
  EXPECT_EQ(examples.train[0].id, "9");
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_rows_with_missing_columns", 2)));
}

TEST_F(Glue, MnliFindsItsColumnsByName) {
  const Task& task = GlueMnliTask();
  const TaskExamples examples =
      Read(task, {{"train.tsv",
                   "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
                   "7\tfiction\tI hate pigeons.\tPigeons are fine.\tneutral\tcontradiction\n"},
                  {"dev_matched.tsv",
                   "index\tsentence2\tsentence1\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
                   "3\tIt rains.\tIt pours.\tneutral\tneutral\tentailment\tentailment\tentailment\tentailment\n"
                   "4\tIt rains.\tIt shines.\tneutral\tneutral\tentailment\tentailment\tcontradiction\t-\n"},
                  {"dev_mismatched.tsv", "index\tsentence1\tsentence2\tgold_label\n5\tA.\tB.\tneutral\n"}});
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("mnli hypothesis: Pigeons are fine. premise: I hate pigeons. -> contradiction [7]"));
  EXPECT_THAT(Shown(task, examples.valid),
              ElementsAre("mnli hypothesis: It rains. premise: It pours. -> entailment [3]"));
  ASSERT_EQ(examples.other_valid.size(), 1u);
  EXPECT_THAT(Shown(task, examples.other_valid[0]), ElementsAre("mnli hypothesis: B. premise: A. -> neutral [5]"));
  EXPECT_THAT(task.valid_splits(), ElementsAre("matched", "mismatched"));
  EXPECT_THAT(examples.counts, ElementsAre(Pair("matched_rows_without_agreed_label", 1)));
}

TEST_F(Glue, Qnli) {
  const Task& task = GlueQnliTask();
  const std::string header = "index\tquestion\tsentence\tlabel\n";
  const TaskExamples examples = Read(task, {{"train.tsv", header + "0\tWhere?\tIn Ulm.\tentailment\n"},
                                            {"dev.tsv", header + "1\tWhen?\tIn Ulm.\tnot_entailment\n"}});
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("qnli question: Where? sentence: In Ulm. -> entailment [0]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("qnli question: When? sentence: In Ulm. -> not_entailment [1]"));
}

TEST_F(Glue, RteMendsADoubledTab) {
  const Task& task = GlueRteTask();
  const TaskExamples examples =
      Read(task, {{"train.tsv", kRteHeader + "2164\tWon in 1983.\tShot in 1983.\t\tentailment\n"},
                  {"dev.tsv", kRteHeader + "0\tA.\tB.\tnot_entailment\r\n"}});
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("rte sentence1: Won in 1983. sentence2: Shot in 1983. -> entailment [2164]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("rte sentence1: A. sentence2: B. -> not_entailment [0]"));
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_rows_with_surplus_empty_columns", 1)));
}

TEST_F(Glue, WnliIsLeftOutOfAverages) {
  const Task& task = GlueWnliTask();
  const TaskExamples examples =
      Read(task, {{"train.tsv", kRteHeader + "0\tThe fish ate the worm. It was tasty.\tThe worm was tasty.\t1\n"},
                  {"dev.tsv", kRteHeader + "1\tA.\tB.\t0\n"}});
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("wnli sentence1: The fish ate the worm. It was tasty. "
                                                       "sentence2: The worm was tasty. -> entailment [0]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("wnli sentence1: A. sentence2: B. -> not_entailment [1]"));
  EXPECT_FALSE(task.in_average());
  EXPECT_TRUE(GlueRteTask().in_average());
}

TEST_F(Glue, MrpcFromGluesFiles) {
  const Task& task = GlueMrpcTask();
  const TaskExamples examples =
      Read(task, {{"train.tsv", kMrpcHeader + "1\t70\t71\tHe said \"so\".\tSo he said.\n"},
                  {"dev.tsv", "\xEF\xBB\xBF" + kMrpcHeader + "0\t80\t81\tOne 's .\tTwo .\n"}});
  EXPECT_THAT(Shown(task, examples.train),
              ElementsAre("mrpc sentence1: He said \"so\". sentence2: So he said. -> equivalent [70-71]"));
  EXPECT_THAT(Shown(task, examples.valid),
              ElementsAre("mrpc sentence1: One 's . sentence2: Two . -> not_equivalent [80-81]"));
}

TEST_F(Glue, MrpcFromMicrosoftsFilesAndTheListOfDevelopmentPairs) {
  const Task& task = GlueMrpcTask();
  const std::string rows = "1\t70\t71\tA.\tB.\r\n0\t80\t81\tC.\tD.\r\n0\t90\t91\tE.\tF.\r\n";
  const TaskExamples examples = Read(task, {{"msr_paraphrase_train.txt", "\xEF\xBB\xBF" + kMrpcHeader + rows},
                                            {"msr_paraphrase_test.txt", kMrpcHeader + "1\t1\t2\tX.\tY.\n"},
                                            {"dev_ids.tsv", "80\t81\n5\t6\n"}});
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("mrpc sentence1: A. sentence2: B. -> equivalent [70-71]",
                                                       "mrpc sentence1: E. sentence2: F. -> not_equivalent [90-91]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("mrpc sentence1: C. sentence2: D. -> not_equivalent [80-81]"));
  EXPECT_THAT(examples.counts, ElementsAre(Pair("dev_ids_without_a_row", 1)));
}

TEST_F(Glue, MrpcFromMicrosoftsFilesAlone) {
  const TaskExamples examples =
      Read(GlueMrpcTask(), {{"msr_paraphrase_train.txt", kMrpcHeader + "1\t70\t71\tA.\tB.\n"},
                            {"msr_paraphrase_test.txt", kMrpcHeader + "1\t1\t2\tX.\tY.\n0\t3\t4\tX.\tZ.\n"}});
  EXPECT_EQ(examples.train.size(), 1u);
  EXPECT_EQ(examples.valid.size(), 2u);
  EXPECT_THAT(examples.counts, ElementsAre(Pair("valid_rows_of_msr_paraphrase_test", 2)));
}

TEST_F(Glue, MrpcSaysWhatItNeeds) {
  ExpectRefused(GlueMrpcTask(), {{"train.tsv", kMrpcHeader}}, "needs 'train.tsv' and 'dev.tsv', or",
                common::ErrorCode::kNotFound);
  ExpectRefused(GlueMrpcTask(), {{"msr_paraphrase_train.txt", kMrpcHeader}}, "with 'dev_ids.tsv' or",
                common::ErrorCode::kNotFound);
}

TEST_F(Glue, Stsb) {
  const Task& task = GlueStsbTask();
  const std::string header = "index\tgenre\tsentence1\tsentence2\tscore\n";
  const TaskExamples examples =
      Read(task, {{"train.tsv", header + "0\tx\tA plane.\tAn air plane.\t5.000\n1\tx\tOne.\tTwo.\t1.66\n"},
                  {"dev.tsv", header + "2\tx\tA.\tB.\t4.75\n"}});
  EXPECT_THAT(Shown(task, examples.train), ElementsAre("stsb sentence1: A plane. sentence2: An air plane. -> 5.0 [0]",
                                                       "stsb sentence1: One. sentence2: Two. -> 1.6 [1]"));
  EXPECT_THAT(Shown(task, examples.valid), ElementsAre("stsb sentence1: A. sentence2: B. -> 4.8 [2]"));
  EXPECT_EQ(examples.valid[0].value, 4.75) << "the gold value is not rounded";
  EXPECT_EQ(task.answer(), AnswerKind::kNumber);
  for (const char* score : {"5.1", "-0.2", "nan", "", "x"})
    ExpectRefused(task, {{"train.tsv", header + "0\tx\tA.\tB.\t" + score + "\n"}, {"dev.tsv", header}},
                  "'train.tsv' line 2: the score '" + std::string(score) + "' is not a number from 0 to 5");
}

TEST(StsbTarget, RoundsToTheNearestFifth) {
  EXPECT_EQ(StsbTarget(0), "0.0");
  EXPECT_EQ(StsbTarget(0.067), "0.0");
  EXPECT_EQ(StsbTarget(3.8), "3.8");
  EXPECT_EQ(StsbTarget(4.909), "5.0");
  EXPECT_EQ(StsbTarget(5), "5.0");
  // Halves go to the even multiple, in float: 0.5 * 5 = 2.5 -> 2, 1.5 * 5 = 7.5 -> 8; 1.3 is a little less in float.
  EXPECT_EQ(StsbTarget(0.5), "0.4");
  EXPECT_EQ(StsbTarget(1.5), "1.6");
  EXPECT_EQ(StsbTarget(2.5), "2.4");
  EXPECT_EQ(StsbTarget(3.5), "3.6");
  EXPECT_EQ(StsbTarget(1.3), "1.2");
}

TEST(StsbTarget, IsTheLabelOfEveryValue) {
  const auto labels = GlueStsbTask().labels();
  ASSERT_EQ(labels.size(), 26u);
  for (size_t i = 0; i < labels.size(); ++i) {
    EXPECT_EQ(StsbTarget(static_cast<double>(i) / 5), labels[i]);
    EXPECT_NEAR(StsbValue(labels[i]), static_cast<double>(i) / 5, 1e-12);
  }
}

TEST(StsbValue, WhatIsNoNumberIsMinusOne) {
  EXPECT_EQ(StsbValue("3.8"), 3.8);
  EXPECT_EQ(StsbValue(" 10. \n"), 10);
  EXPECT_EQ(StsbValue("+2"), 2);
  EXPECT_EQ(StsbValue("1e1"), 10);
  for (const char* text : {"", " ", "asdf", "3.8 stars", "3,8", "nan", "inf", "-infinity", "+-1", "1e999", "--1"})
    EXPECT_EQ(StsbValue(text), -1) << text;
}

TEST_F(Glue, BadRowsAreNamedByFileAndLine) {
  const std::string good = "0\tA.\tB.\tentailment\n", dev = kRteHeader + good;
  const Task& task = GlueRteTask();
  ExpectRefused(task, {{"train.tsv", kRteHeader + good + "1\tA.\tB.\n"}, {"dev.tsv", dev}},
                "glue_rte 'train.tsv' line 3: the row has 3 columns, and there should be 4");
  ExpectRefused(task, {{"train.tsv", dev}, {"dev.tsv", dev + "1\tA.\tB.\tx\tentailment\n"}},
                "glue_rte 'dev.tsv' line 3: the row has 5 columns, and there should be 4");
  ExpectRefused(task, {{"train.tsv", kRteHeader + good + "1\tA.\tB.\tmaybe\n"}, {"dev.tsv", dev}},
                "'train.tsv' line 3: the label 'maybe' is none of: entailment not_entailment");
  ExpectRefused(task, {{"train.tsv", dev + "1\tA\xFF.\tB.\tentailment\n"}, {"dev.tsv", dev}},
                "'train.tsv' line 3: not UTF-8");
  ExpectRefused(task, {{"train.tsv", "index\tpremise\tsentence2\tlabel\n" + good}, {"dev.tsv", dev}},
                "'train.tsv' line 1: the header has no column 'sentence1'; it has: index, premise, sentence2, label");
  ExpectRefused(task, {{"train.tsv", ""}, {"dev.tsv", dev}}, "'train.tsv': the file is empty");
  ExpectRefused(GlueColaTask(), {{"train.tsv", "gj04\t1\tKim left.\n"}, {"dev.tsv", ""}},
                "glue_cola 'train.tsv' line 1: the row has 3 columns, and there should be 4");
}

TEST_F(Glue, AFileThatIsMissingIsNamed) {
  ExpectRefused(GlueRteTask(), {{"train.tsv", kRteHeader}}, "task glue_rte was not given its file 'dev.tsv'",
                common::ErrorCode::kNotFound);
}

TEST_F(Glue, BlankLinesAreCounted) {
  const std::string good = "0\tA.\tB.\tentailment\n";
  const TaskExamples examples =
      Read(GlueRteTask(), {{"train.tsv", kRteHeader + good + "\n" + good + "\n"}, {"dev.tsv", kRteHeader + good}});
  EXPECT_EQ(examples.train.size(), 2u);
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_blank_lines", 2)));
}

TEST_F(Glue, FoldersAreSearchedForTheFiles) {
  Write("train.tsv", "");
  auto files = FindTaskFiles(GlueMnliTask(), dir_);
  ASSERT_FALSE(files.ok());
  EXPECT_EQ(files.error().code, common::ErrorCode::kNotFound);
  EXPECT_THAT(files.error().message, HasSubstr("lacks 'dev_matched.tsv'; task glue_mnli reads: train.tsv"));
  Write("dev_matched.tsv.gz", "");
  Write("dev_mismatched.tsv", "");
  files = FindTaskFiles(GlueMnliTask(), dir_);
  ASSERT_TRUE(files.ok()) << files.error().message;
  EXPECT_EQ(files->at("dev_matched.tsv"), dir_ / "dev_matched.tsv.gz");
  EXPECT_EQ(files->size(), 3u);
  EXPECT_EQ(FindTaskFiles(GlueMrpcTask(), dir_)->size(), 1u);
  EXPECT_THAT(FindTaskFiles(GlueMrpcTask(), dir_ / "none").error().message, HasSubstr("has none of the files"));
}

TEST(Tasks, AreTwentyWithNamesOfTheirOwn) {
  std::map<std::string, int> benchmarks;
  std::set<std::string_view> names;
  for (const Task* task : Tasks()) {
    ++benchmarks[std::string(task->benchmark())];
    EXPECT_TRUE(names.insert(task->name()).second) << task->name();
    EXPECT_FALSE(task->metrics().empty());
  }
  EXPECT_THAT(benchmarks, ElementsAre(Pair("glue", 9), Pair("squad", 1), Pair("superglue", 8), Pair("wordnet", 2)));
  EXPECT_EQ((*FindTask("superglue_rte"))->benchmark(), "superglue");
  EXPECT_THAT(FindTask("glue_qnly").error().message, HasSubstr("did you mean 'glue_qnli'"));
}

}  // namespace
}  // namespace allometry::trainer
