#include "worker/trainer/tasks/task_scores.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/unit/trainer_data/data_fixture.h"
#include "tests/unit/trainer_data/made_up_wordnet.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/tasks/metrics.h"

namespace allometry::trainer {
namespace {

using common::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Tasks of every kind of answer, made up in their benchmarks' own formats.
class TaskScoresTest : public DataFixture {
 protected:
  void SetUp() override {
    DataFixture::SetUp();
    std::string text = MadeUpText(200, 30, 1);
    for (int i = 0; i < 300; ++i)
      text +=
          "noun verb true false True False choice1 choice2 entailment neutral contradiction unacceptable acceptable "
          "not_equivalent not_equivalent _ _ equivalent 0.0 0.2 1.4 2.6 3.8 5.0 : " +
          std::to_string(i) + "\n\n";
    Json run = TextRun(Write("text.txt", text), 500);
    run["tasks"] = {Wic(), Mnli(), Stsb(), Mrpc(), Multirc(), Wsc(), Squad()};
    const common::Status status = Prepare(run, execution_, dir_ / "data", nullptr);
    ASSERT_TRUE(status.ok()) << status.error().message;
    data_ = std::make_unique<Dataset>(*Dataset::Open(dir_ / "data"));
  }

  Json TaskOf(const std::string& name, const std::map<std::string, std::string>& files) {
    Json list = Json::array();
    for (const auto& [file, content] : files) {
      list.push_back(Manifest(Write(name + "/" + file, content)));
    }
    return {{"name", name}, {"files", list}};
  }
  Json Wic() {
    return TaskOf("wordnet_wic", {{"data.noun", MadeUpSynsets('n', 1, 3)}, {"data.verb", MadeUpSynsets('v', 2, 3)}});
  }
  Json Mnli() {
    const std::string header = "sentence1\tsentence2\tgold_label\n";
    return TaskOf("glue_mnli", {{"train.tsv", header + "a\tb\tneutral\n"},
                                {"dev_matched.tsv", header + "a\tb\tneutral\nc\td\tentailment\n"},
                                {"dev_mismatched.tsv", header + "e\tf\tcontradiction\n"}});
  }
  Json Stsb() {
    const std::string header = "index\tsentence1\tsentence2\tscore\n";
    return TaskOf("glue_stsb", {{"train.tsv", header + "0\ta\tb\t2.5\n"},
                                {"dev.tsv", header + "0\ta\tb\t1.0\n1\tc\td\t2.0\n2\te\tf\t4.5\n"}});
  }
  Json Mrpc() {
    const std::string header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n";
    std::string dev = header;
    for (int i = 0; i < 20; ++i) dev += std::string(i < 12 ? "1" : "0") + "\t1\t2\ta\tb\n";
    return TaskOf("glue_mrpc", {{"train.tsv", header + "1\t1\t2\ta\tb\n"}, {"dev.tsv", dev}});
  }
  static std::string Paragraph(int idx, const std::string& labels) {
    Json questions = Json::array();
    for (size_t q = 0; q < labels.size(); q += 2) {
      Json answers = Json::array();
      for (size_t a = 0; a < 2; ++a)
        answers.push_back({{"text", "x"}, {"idx", a}, {"label", labels[q + a] == '1' ? 1 : 0}});
      questions.push_back({{"question", "why?"}, {"idx", q}, {"answers", answers}});
    }
    return Json{{"idx", idx}, {"passage", {{"text", "Text " + std::to_string(idx)}, {"questions", questions}}}}.dump() +
           "\n";
  }
  Json Multirc() {
    return TaskOf("superglue_multirc", {{"train.jsonl", Paragraph(0, "10")},
                                        {"val.jsonl", Paragraph(0, "1001") + Paragraph(1, "11") + Paragraph(2, "01")}});
  }
  static std::string WscRow(const std::string& referent, int start, bool label, int idx) {
    return Json{
               {"text", "Ann told Bob that he won"},
               {"target", {{"span1_index", start}, {"span1_text", referent}, {"span2_index", 4}, {"span2_text", "he"}}},
               {"label", label},
               {"idx", idx}}
               .dump() +
           "\n";
  }
  Json Wsc() {
    const std::string rows = WscRow("Ann", 0, false, 0) + WscRow("Bob", 2, true, 1);
    return TaskOf("superglue_wsc", {{"train.jsonl", rows}, {"val.jsonl", rows}});
  }
  Json Squad() {
    const auto file = [](std::initializer_list<std::pair<std::string, std::string>> answers) {
      Json paragraphs = Json::array();
      for (const auto& [context, answer] : answers)
        paragraphs.push_back(
            {{"context", context},
             {"qas",
              {{{"id", context}, {"question", "Who?"}, {"answers", {{{"text", answer}, {"answer_start", 0}}}}}}}});
      return Json{{"data", {{{"title", "t"}, {"paragraphs", paragraphs}}}}, {"version", "1.1"}}.dump();
    };
    return TaskOf("squad",
                  {{"train-v1.1.json", file({{"A cat ate.", "A cat"}})},
                   {"dev-v1.1.json", file({{"The dog ran home.", "The dog"}, {"Two birds sang.", "Two birds"}})}});
  }

  TaskData Task(const std::string& name) { return *data_->OpenTask(name); }
  static SplitAnswers Answers(const TaskSplit& split, std::vector<std::string> texts, std::string name = "valid") {
    SplitAnswers answers{std::move(name), &split, {}, std::move(texts)};
    for (size_t i = 0; i < answers.answers.size(); ++i) answers.examples.push_back(static_cast<int64_t>(i));
    return answers;
  }
  static TaskScore Score(const TaskData& task, const SplitAnswers& answers) { return ScoreTask(task, {{answers}}); }

  std::unique_ptr<Dataset> data_;
};

std::vector<std::string> GoldTexts(const TaskData& task) {
  std::vector<std::string> texts;
  for (int32_t label : task.valid().labels()) texts.push_back(task.labels()[static_cast<size_t>(label)]);
  return texts;
}

TEST_F(TaskScoresTest, CountsRightWrongAndUnparsed) {
  const TaskData task = Task("wordnet_wic");
  std::vector<std::string> texts = GoldTexts(task);
  const auto n = static_cast<double>(texts.size());
  TaskScore score = Score(task, Answers(task.valid(), texts));
  EXPECT_EQ(score.value, 1);
  EXPECT_EQ(score.majority, 0.5);
  EXPECT_EQ(score.standard_error, 0);
  EXPECT_FALSE(score.at_chance);
  texts[0] = "";
  texts[1] = texts[1] == "true" ? "false" : "true";
  score = Score(task, Answers(task.valid(), texts));
  const double value = (n - 2) / n;
  EXPECT_DOUBLE_EQ(score.value, value);
  EXPECT_NEAR(*score.standard_error, std::sqrt(value * (1 - value) / n), 1e-12);
  EXPECT_EQ(score.unparsed, 1);
  EXPECT_EQ(score.examples, static_cast<int64_t>(n));
  const Json json = score.ToJson();
  for (const char* key : {"task", "benchmark", "in_average", "metric", "metrics", "value", "examples", "majority",
                          "standard_error", "standard_errors", "at_chance", "unparsed"})
    EXPECT_TRUE(json.contains(key)) << key;
}

TEST_F(TaskScoresTest, ChanceIsWithinTwoStandardErrorsOfTheMajority) {
  const TaskData task = Task("wordnet_wic");
  const std::vector<std::string> gold = GoldTexts(task);
  const size_t n = gold.size();
  EXPECT_TRUE(Score(task, Answers(task.valid(), std::vector<std::string>(n, "true"))).at_chance);
  EXPECT_TRUE(Score(task, Answers(task.valid(), std::vector<std::string>(n))).at_chance) << "below it is chance too";
  // The flag changes exactly where value - 2 se crosses the majority share.
  for (size_t right = 0; right <= n; ++right) {
    std::vector<std::string> texts = gold;
    for (size_t i = right; i < n; ++i) texts[i] = gold[i] == "true" ? "false" : "true";
    const double value = static_cast<double>(right) / static_cast<double>(n);
    const double error = std::sqrt(value * (1 - value) / static_cast<double>(n));
    EXPECT_EQ(Score(task, Answers(task.valid(), texts)).at_chance, value - 2 * error <= 0.5) << right;
  }
}

TEST_F(TaskScoresTest, ScoreWithoutErrorsHasTheSameValue) {
  const TaskData task = Task("glue_mrpc");
  const SplitAnswers answers = Answers(task.valid(), std::vector<std::string>(20, "equivalent"));
  const TaskScore with = ScoreTask(task, {{answers}}), without = ScoreTask(task, {{answers}}, false);
  EXPECT_EQ(with.value, without.value);
  EXPECT_TRUE(with.standard_error && with.metrics[0].standard_error);
  EXPECT_FALSE(without.standard_error || without.metrics[0].standard_error);
}

TEST_F(TaskScoresTest, TheMajorityIsTheBestConstantAnswersValue) {
  const TaskData task = Task("glue_mrpc");
  const TaskScore score = Score(task, Answers(task.valid(), std::vector<std::string>(20, "equivalent")));
  // 12 of 20 are equivalent: F1 2 * 12 / (12 + 20) and accuracy 0.6.
  EXPECT_DOUBLE_EQ(score.metrics[0].value, 0.75);
  EXPECT_DOUBLE_EQ(score.metrics[1].value, 0.6);
  EXPECT_DOUBLE_EQ(score.value, 0.675);
  EXPECT_DOUBLE_EQ(*score.majority, score.value);
  EXPECT_TRUE(score.at_chance);
}

TEST_F(TaskScoresTest, SeveralSplitsAreSeveralMetrics) {
  const TaskData task = Task("glue_mnli");
  ASSERT_THAT(task.valid_names(), ElementsAre("matched", "mismatched"));
  const std::vector<SplitAnswers> splits = {Answers(task.valid_splits()[0], {"neutral", "neutral"}, "matched"),
                                            Answers(task.valid_splits()[1], {"contradiction"}, "mismatched")};
  const TaskScore score = ScoreTask(task, splits);
  EXPECT_EQ(score.metrics[0].metric, "matched_accuracy");
  EXPECT_EQ(score.metrics[0].value, 0.5);
  EXPECT_EQ(score.metrics[1].metric, "mismatched_accuracy");
  EXPECT_EQ(score.metrics[1].value, 1);
  EXPECT_EQ(score.value, 0.75);
  EXPECT_EQ(score.examples, 3);
  // The first has sqrt(0.25 / 2), the second none; a mean of two has half the root of the sum of squares.
  EXPECT_NEAR(*score.standard_error, std::sqrt(0.125) / 2, 1e-12);
}

TEST_F(TaskScoresTest, NumbersAreComparedUnrounded) {
  const TaskData task = Task("glue_stsb");
  const TaskScore score = Score(task, Answers(task.valid(), {"1.4", "nothing", "5.0"}));
  const std::vector<double> gold = {1.0, 2.0, 4.5}, predicted = {1.4, -1, 5};
  EXPECT_DOUBLE_EQ(score.metrics[0].value, PearsonCorrelation(gold, predicted));
  EXPECT_DOUBLE_EQ(score.metrics[1].value, SpearmanCorrelation(gold, predicted));
  EXPECT_EQ(score.unparsed, 1);
  EXPECT_EQ(score.majority, 0);
}

TEST_F(TaskScoresTest, QuestionsAndPassagesStayWhole) {
  const TaskData task = Task("superglue_multirc");
  ASSERT_EQ(task.valid().size(), 8);
  // Gold 1 0 | 0 1 | 1 1 | 0 1; the third question's second option is missed.
  const SplitAnswers answers =
      Answers(task.valid(), {"True", "False", "False", "True", "True", "False", "False", "True"});
  const TaskScore score = Score(task, answers);
  EXPECT_DOUBLE_EQ(score.metrics[0].value, 2.0 * 4 / (2 * 4 + 1));
  EXPECT_DOUBLE_EQ(score.metrics[1].value, 0.75);
  // Resampled by passage: three, of 4, 2 and 2 options.
  std::vector<int64_t> passages;
  for (int64_t i = 0; i < 8; ++i) passages.push_back(task.valid().facts(i).passage);
  EXPECT_THAT(passages, ElementsAre(0, 0, 0, 0, 1, 1, 2, 2));
  const std::vector<int32_t> gold(task.valid().labels().begin(), task.valid().labels().end());
  const std::vector<int32_t> predicted = {1, 0, 0, 1, 1, 0, 0, 1};
  EXPECT_EQ(score.metrics[0].standard_error, BootstrapError(8, passages, [&](std::span<const int64_t> examples) {
              return BinaryF1(Select(gold, examples), Select(predicted, examples));
            }));
}

TEST_F(TaskScoresTest, AReferentIsNamedOrNot) {
  const TaskData task = Task("superglue_wsc");
  EXPECT_TRUE(task.labels().empty());
  EXPECT_EQ(task.train().size(), 1) << "the true row only";
  EXPECT_EQ(Score(task, Answers(task.valid(), {"Bob", "Bob"})).value, 1);
  EXPECT_EQ(Score(task, Answers(task.valid(), {"Ann", "Ann"})).value, 0);
  const TaskScore half = Score(task, Answers(task.valid(), {"Ann", "Bob"}));
  EXPECT_EQ(half.value, 0.5);
  EXPECT_EQ(half.majority, 0.5);
}

TEST_F(TaskScoresTest, FreeTextHasNoMajority) {
  const TaskData task = Task("squad");
  const TaskScore score = Score(task, Answers(task.valid(), {"dog", "two birds sang"}));
  const double f1 = (1 + 0.8) / 2;
  for (const MetricScore& metric : score.metrics) EXPECT_NEAR(metric.value, metric.metric == "f1" ? f1 : 0.5, 1e-12);
  EXPECT_FALSE(score.majority);
  EXPECT_TRUE(score.ToJson()["majority"].is_null());
  EXPECT_TRUE(Score(task, Answers(task.valid(), {"", ""})).at_chance) << "nothing right";
  EXPECT_FALSE(task.HasChoices());
}

TEST_F(TaskScoresTest, PredictionsNameTheExample) {
  const TaskData squad = Task("squad"), wic = Task("wordnet_wic"), stsb = Task("glue_stsb");
  Json row = PredictionOf(squad, Answers(squad.valid(), {"dog", ""}), 0);
  EXPECT_EQ(row["id"], "The dog ran home.");
  EXPECT_EQ(row["prediction"], "dog");
  EXPECT_EQ(row["gold"], Json::array({"The dog"}));
  row = PredictionOf(wic, Answers(wic.valid(), {"a", "b"}), 1);
  EXPECT_EQ(row["id"], "1") << "the row number where the file gives none";
  EXPECT_EQ(row["gold"], GoldTexts(wic)[1]);
  EXPECT_EQ(PredictionOf(stsb, Answers(stsb.valid(), {"a", "b", "c"}), 2)["gold"], 4.5);
}

TEST_F(TaskScoresTest, AnswersAreParsedAsText) {
  const TaskData task = Task("wordnet_wic");
  const auto answer = [&](std::vector<int64_t> ids) { return task.ParseLabel(task.AnswerText(ids)); };
  for (int32_t label : {0, 1}) {
    const std::vector<int32_t>& tokens = task.label_tokens()[static_cast<size_t>(label)];
    std::vector<int64_t> ids(tokens.begin(), tokens.end());
    EXPECT_EQ(answer(ids), label) << "with its end mark";
    ids.insert(ids.end(), {5, 6, 7});
    EXPECT_EQ(answer(ids), label) << "what follows the end mark is ignored";
    ids.resize(tokens.size() - 1);
    EXPECT_EQ(answer(ids), label) << "without its end mark";
    ids.insert(ids.end(), ids.begin(), ids.end());
    EXPECT_EQ(answer(ids), -1) << "said twice";
  }
  EXPECT_EQ(answer({}), -1);
  EXPECT_EQ(answer({0, 0}), -1);
  EXPECT_EQ(answer({499}), -1) << "a sentinel";
}

TEST_F(TaskScoresTest, AnswersMustFitTheExamples) {
  const TaskData task = Task("squad");
  EXPECT_THROW(ScoreTask(task, {}), std::invalid_argument);
  SplitAnswers answers = Answers(task.valid(), {"a", "b"});
  answers.answers.pop_back();
  EXPECT_THROW(ScoreTask(task, {{answers}}), std::invalid_argument);
}

}  // namespace
}  // namespace allometry::trainer
