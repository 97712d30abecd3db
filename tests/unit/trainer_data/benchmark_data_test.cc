// The real files of GLUE, SuperGLUE and SQuAD. They are not part of the project: ALLOMETRY_SHARED_DATA names a folder
// with tasks/{glue,superglue,squad} in it (default: ../shared/data beside the project).
#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>

#include "common/json.h"
#include "worker/trainer/tasks/stsb_value.h"
#include "worker/trainer/tasks/t5_text.h"
#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tasks/task_lines.h"
#include "worker/trainer/tasks/wsc_referent.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;
using BenchmarkRows = std::vector<Json>;
// How many examples a row of a file of JSON lines makes.
using Weight = std::function<int64_t(const Json& row)>;

fs::path SharedTasks() {
  const char* folder = std::getenv("ALLOMETRY_SHARED_DATA");
  return (folder ? fs::path(folder) : fs::path(ALLOMETRY_SOURCE_DIR) / ".." / "shared" / "data") / "tasks";
}

int64_t CountLines(const fs::path& path) {
  std::ifstream in(path);
  int64_t lines = 0;
  for (std::string line; std::getline(in, line);) ++lines;
  return lines;
}

int64_t CountRows(const fs::path& path, const Weight& weight) {
  std::ifstream in(path);
  int64_t examples = 0;
  for (std::string line; std::getline(in, line);) examples += weight(Json::parse(line));
  return examples;
}

int64_t CountQuestions(const fs::path& path) {
  std::ifstream in(path);
  const Json json = Json::parse(in);
  int64_t questions = 0;
  for (const Json& article : json.at("data"))
    for (const Json& paragraph : article.at("paragraphs"))
      questions += static_cast<int64_t>(paragraph.at("qas").size());
  return questions;
}

// No text that a model or a metric will see may be empty, and what is numbered must be numbered without gaps.
void ExpectWhole(const Task& task, const std::vector<TaskExample>& examples) {
  int32_t questions = 0, passages = 0;
  for (const TaskExample& e : examples) {
    ASSERT_FALSE(e.input.empty());
    ASSERT_FALSE(e.id.empty()) << e.input;
    ASSERT_FALSE(TargetText(task, e).empty()) << e.input;
    ASSERT_TRUE(IsUtf8(e.input)) << e.input;
    ASSERT_EQ(e.references.empty(), !task.labels().empty()) << e.input;
    ASSERT_TRUE(task.labels().empty() || static_cast<size_t>(e.label) < task.labels().size()) << e.input;
    for (const std::string& text : e.references) ASSERT_FALSE(text.empty()) << e.input;
    for (const std::string& text : e.choices) ASSERT_FALSE(text.empty()) << e.input;
    ASSERT_LE(e.question, questions);
    ASSERT_LE(e.passage, passages);
    questions = std::max(questions, e.question + 1);
    passages = std::max(passages, e.passage + 1);
  }
}

class BenchmarkData : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(SharedTasks() / "glue"))
      GTEST_SKIP() << "'" << SharedTasks().string()
                   << "' is absent: set ALLOMETRY_SHARED_DATA to a folder with tasks/glue, tasks/superglue and "
                      "tasks/squad in it";
  }

  TaskExamples Read(const Task& task, const char* folder) {
    const auto files = FindTaskFiles(task, SharedTasks() / folder);
    if (!files) {
      ADD_FAILURE() << files.error().message;
      return {};
    }
    auto examples = task.Read(*files);
    if (!examples) {
      ADD_FAILURE() << examples.error().message;
      return {};
    }
    ExpectWhole(task, examples->train);
    ExpectWhole(task, examples->valid);
    for (const auto& split : examples->other_valid) ExpectWhole(task, split);
    std::printf("%-18s %6zu training and %5zu validation examples", std::string(task.name()).c_str(),
                examples->train.size(), examples->valid.size());
    for (const auto& [name, n] : examples->counts) std::printf(", %s %lld", name.c_str(), static_cast<long long>(n));
    std::printf("\n  %s\n  -> %s\n", examples->valid[0].input.substr(0, 150).c_str(),
                std::string(TargetText(task, examples->valid[0])).c_str());
    return std::move(examples).value();
  }

  void ExpectTsv(const Task& task, const char* folder, int64_t header_lines = 1) {
    const TaskExamples examples = Read(task, folder);
    const fs::path path = SharedTasks() / folder;
    EXPECT_EQ(static_cast<int64_t>(examples.train.size()), CountLines(path / "train.tsv") - header_lines);
    EXPECT_EQ(static_cast<int64_t>(examples.valid.size()), CountLines(path / "dev.tsv") - header_lines);
  }

  TaskExamples ExpectRows(const Task& task, const char* folder, const Weight& train, const Weight& valid) {
    TaskExamples examples = Read(task, folder);
    const fs::path path = SharedTasks() / folder;
    EXPECT_EQ(static_cast<int64_t>(examples.train.size()), CountRows(path / "train.jsonl", train));
    EXPECT_EQ(static_cast<int64_t>(examples.valid.size()), CountRows(path / "val.jsonl", valid));
    return examples;
  }
};

int64_t One(const Json&) { return 1; }

TEST_F(BenchmarkData, GlueHasAnExampleARow) {
  ExpectTsv(GlueColaTask(), "glue/CoLA", 0);
  ExpectTsv(GlueSst2Task(), "glue/SST-2");
  ExpectTsv(GlueMrpcTask(), "glue/MRPC");
  ExpectTsv(GlueQqpTask(), "glue/QQP");
  ExpectTsv(GlueStsbTask(), "glue/STS-B");
  ExpectTsv(GlueQnliTask(), "glue/QNLI");
  ExpectTsv(GlueRteTask(), "glue/RTE");
  ExpectTsv(GlueWnliTask(), "glue/WNLI");
}

TEST_F(BenchmarkData, MnliHasTwoValidationSplits) {
  const TaskExamples examples = Read(GlueMnliTask(), "glue/MNLI");
  const fs::path path = SharedTasks() / "glue/MNLI";
  ASSERT_EQ(examples.other_valid.size(), 1u);
  EXPECT_EQ(static_cast<int64_t>(examples.train.size()), CountLines(path / "train.tsv") - 1);
  EXPECT_EQ(static_cast<int64_t>(examples.valid.size()), CountLines(path / "dev_matched.tsv") - 1);
  EXPECT_EQ(static_cast<int64_t>(examples.other_valid[0].size()), CountLines(path / "dev_mismatched.tsv") - 1);
}

TEST_F(BenchmarkData, StsbLabelsAreItsRoundedValues) {
  const Task& task = GlueStsbTask();
  for (const TaskExample& e : Read(task, "glue/STS-B").train) {
    EXPECT_EQ(TargetText(task, e), StsbTarget(e.value));
    EXPECT_NEAR(StsbValue(TargetText(task, e)), e.value, 0.1 + 1e-6);
  }
}

TEST_F(BenchmarkData, SuperglueRows) {
  ExpectRows(SuperglueBoolqTask(), "superglue/BoolQ", One, One);
  ExpectRows(SuperglueCbTask(), "superglue/CB", One, One);
  ExpectRows(SuperglueCopaTask(), "superglue/COPA", One, One);
  ExpectRows(SuperglueRteTask(), "superglue/RTE", One, One);
  ExpectRows(SuperglueWicTask(), "superglue/WiC", One, One);
}

TEST_F(BenchmarkData, WscTrainsOnTheTrueRows) {
  const Task& task = SuperglueWscTask();
  const TaskExamples examples = ExpectRows(
      task, "superglue/WSC", [](const Json& row) { return int64_t{row.at("label").get<bool>()}; }, One);
  for (const auto* split : {&examples.train, &examples.valid})
    for (const TaskExample& e : *split) {
      EXPECT_EQ(std::count(e.input.begin(), e.input.end(), '*'), 2) << e.input;
      std::string text = e.input;
      std::erase(text, '*');
      EXPECT_NE(text.find(e.target), text.npos) << e.target << " in " << text;
      EXPECT_TRUE(MatchesReferent(e.target, e.references[0]));
    }
  if (examples.counts.contains("train_rows_with_a_wrong_referent") && examples.train.size() == 259) {
    EXPECT_EQ(examples.counts.at("train_rows_with_a_wrong_referent"), 554 - 259);
  }
}

TEST_F(BenchmarkData, MultircOptions) {
  const Weight options = [](const Json& row) {
    int64_t n = 0;
    for (const Json& question : row.at("passage").at("questions"))
      n += static_cast<int64_t>(question.at("answers").size());
    return n;
  };
  const TaskExamples examples = ExpectRows(SuperglueMultircTask(), "superglue/MultiRC", options, options);
  std::set<int32_t> questions;
  for (const TaskExample& e : examples.valid) questions.insert(e.question);
  EXPECT_EQ(static_cast<int64_t>(questions.size()),
            CountRows(SharedTasks() / "superglue/MultiRC/val.jsonl",
                      [](const Json& row) { return static_cast<int64_t>(row.at("passage").at("questions").size()); }));
}

TEST_F(BenchmarkData, RecordAnswers) {
  const Weight answers = [](const Json& row) {
    int64_t n = 0;
    for (const Json& query : row.at("qas")) {
      std::set<std::string> texts;
      for (const Json& answer : query.at("answers")) texts.insert(answer.at("text").get<std::string>());
      n += static_cast<int64_t>(texts.size());
    }
    return n;
  };
  const Weight queries = [](const Json& row) { return static_cast<int64_t>(row.at("qas").size()); };
  const TaskExamples examples = ExpectRows(SuperglueRecordTask(), "superglue/ReCoRD", answers, queries);
  for (const auto* split : {&examples.train, &examples.valid})
    for (const TaskExample& e : *split) {
      ASSERT_GE(e.label, 0) << "every answer is one of the entities";
      EXPECT_EQ(e.choices[static_cast<size_t>(e.label)], e.target);
      EXPECT_EQ(e.input.find("@highlight"), e.input.npos);
      for (const std::string& choice : e.choices) EXPECT_NE(e.input.find(choice), e.input.npos) << choice;
    }
}

TEST_F(BenchmarkData, SquadQuestions) {
  for (const bool padding : {false, true}) {
    const TaskExamples examples = Read(SquadV11Task(padding), "squad");
    EXPECT_EQ(static_cast<int64_t>(examples.train.size()), CountQuestions(SharedTasks() / "squad/train-v1.1.json"));
    EXPECT_EQ(static_cast<int64_t>(examples.valid.size()), CountQuestions(SharedTasks() / "squad/dev-v1.1.json"));
    for (const TaskExample& e : examples.valid)
      for (const std::string& text : e.references) EXPECT_NE(e.input.find(CollapseBlanks(text)), e.input.npos) << text;
  }
}

}  // namespace
}  // namespace allometry::trainer
