#include "worker/trainer/data/prepare.h"

#include <gmock/gmock.h>

#include <set>

#include "tests/unit/trainer_data/data_fixture.h"
#include "tests/unit/trainer_data/made_up_wordnet.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/span_corruption.h"
#include "worker/trainer/tasks/task.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;
using ::testing::HasSubstr;

bool GoOn(const PrepareProgress&) { return true; }

class PrepareTest : public DataFixture {
 protected:
  Json RunWithTasks() {
    Json run = TextRun(Write("text.txt", MadeUpText(400, 30, 1) + TaskWords()), 500);
    Json files = {
        Manifest(Write("data.noun", MadeUpSynsets('n', 1, 3))), Manifest(Write("data.verb", MadeUpSynsets('v', 2, 3))),
        Manifest(Write("data.adj", MadeUpSynsets('s', 3, 1))), Manifest(Write("data.adv", MadeUpSynsets('r', 4, 1)))};
    run["tasks"] = {{{"name", "wordnet_pos"}, {"max_train", 40}, {"max_valid", 8}, {"files", files}},
                    {{"name", "wordnet_wic"}, {"files", files}}};
    return run;
  }
  // So that the tokenizer can spell the labels.
  static std::string TaskWords() {
    std::string text;
    for (int i = 0; i < 40; ++i) text += "noun verb adjective adverb true false : " + std::to_string(i) + "\n\n";
    return text;
  }
  common::Status Prepared(const Json& run, const std::string& name) {
    return Prepare(run, execution_, dir_ / name, GoOn);
  }
  common::Error Failure(const Json& run) {
    const common::Status status = Prepared(run, "failed");
    EXPECT_FALSE(status.ok());
    EXPECT_FALSE(fs::exists(dir_ / "failed")) << "nothing may be left half-written";
    EXPECT_FALSE(fs::exists(dir_ / "failed.partial"));
    return status.error();
  }
  std::map<std::string, std::string> Contents(const std::string& name) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(dir_ / name))
      if (entry.is_regular_file()) files[fs::relative(entry.path(), dir_ / name)] = ReadAll(entry.path());
    return files;
  }
};

TEST_F(PrepareTest, HoldsTheTextSplitByDocument) {
  const std::string text = MadeUpText(400, 30, 1) + "same thing\n\nsame thing\n\nbad \xE9 byte\n\n";
  const Json run = TextRun(Write("text.txt", text), 500);
  const common::Status status = Prepared(run, "data");
  ASSERT_TRUE(status.ok()) << status.error().message;
  const auto data = Dataset::Open(dir_ / "data");
  ASSERT_TRUE(data.ok()) << data.error().message;
  const Json& info = data->info();
  EXPECT_EQ(info["text"]["documents"], 403);
  EXPECT_EQ(info["text"]["words"], 400 * 30 + 4 + 3);
  EXPECT_EQ(info["text"]["duplicates"], 1);
  EXPECT_EQ(info["text"]["replaced_lines"], 1);
  EXPECT_EQ(info["recipe"], run);
  EXPECT_EQ(data->train().documents() + data->valid().documents(), 402);
  EXPECT_NEAR(static_cast<double>(data->valid().documents()), 0.2 * 402, 40) << "five standard deviations";
  EXPECT_EQ(data->tokenizer().pieces(), 400);
  std::set<std::string> train, valid;
  for (int64_t i = 0; i < data->train().documents(); ++i)
    train.insert(data->tokenizer().Decode(data->train().Document(i)));
  for (int64_t i = 0; i < data->valid().documents(); ++i) {
    const std::vector<int32_t> ids = data->valid().Document(i);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), kEos), 1);
    EXPECT_EQ(ids.back(), kEos);
    valid.insert(data->tokenizer().Decode(ids));
  }
  EXPECT_EQ(train.size() + valid.size(), 402u);
  for (const std::string& document : valid) EXPECT_FALSE(train.contains(document));
  std::string first = text.substr(0, text.find('\n'));
  EXPECT_TRUE(train.contains(first) != valid.contains(first)) << first;
}

TEST_F(PrepareTest, SharesOfTheTextAddUpToOne) {
  ASSERT_TRUE(Prepared(TextRun(Write("text.txt", MadeUpText(400, 30, 1)), 500), "data").ok());
  const Dataset data = *Dataset::Open(dir_ / "data");
  std::vector<int64_t> counts(500, 0);
  std::vector<int32_t> all(static_cast<size_t>(data.train().tokens()));
  data.train().Read(0, all);
  int64_t text_tokens = 0;
  for (int32_t id : all) ++counts[id], text_tokens += data.tokenizer().IsText(id);
  double total = 0;
  for (int id = 0; id < 500; ++id) {
    const double nll = data.unigram_nll()[id];
    if (!data.tokenizer().IsText(id)) {
      EXPECT_EQ(nll, 0) << id;
      continue;
    }
    EXPECT_NEAR(std::exp(-nll), (counts[id] + 1.0) / (text_tokens + 398.0), 1e-12);
    total += std::exp(-nll);
  }
  EXPECT_NEAR(total, 1, 1e-9);
}

TEST_F(PrepareTest, TheSameRunGivesTheSameBytesOnAnyNumberOfThreads) {
  const Json run = RunWithTasks();
  ASSERT_TRUE(Prepared(run, "one").ok());
  execution_["threads"] = 3;
  ASSERT_TRUE(Prepared(run, "two").ok());
  const auto one = Contents("one"), two = Contents("two");
  EXPECT_GT(one.size(), 15u);
  EXPECT_EQ(one, two);
}

TEST_F(PrepareTest, WhatIsCompleteStaysAndWhatIsDamagedIsMadeAgain) {
  const Json run = TextRun(Write("text.txt", MadeUpText(400, 30, 1)), 500);
  int calls = 0;
  const auto counting = [&](const PrepareProgress&) { return ++calls, true; };
  ASSERT_TRUE(Prepare(run, execution_, dir_ / "data", counting).ok());
  const auto before = Contents("data");
  EXPECT_GT(calls, 3);
  calls = 0;
  ASSERT_TRUE(Prepare(run, execution_, dir_ / "data", counting).ok());
  EXPECT_EQ(calls, 0);
  fs::resize_file(dir_ / "data" / "valid-00000.tokens", 10);
  EXPECT_EQ(Dataset::Open(dir_ / "data").error().code, common::ErrorCode::kDataLoss);
  ASSERT_TRUE(Prepare(run, execution_, dir_ / "data", counting).ok());
  EXPECT_GT(calls, 3);
  EXPECT_EQ(Contents("data"), before);
}

TEST_F(PrepareTest, StoppingAtAnyPointLeavesNothingHalfWrittenAndStartingAgainFinishes) {
  const Json run = RunWithTasks();
  ASSERT_TRUE(Prepared(run, "whole").ok());
  int points = 0;
  for (int stop_at = 1;; ++stop_at) {
    int calls = 0;
    const auto stopping = [&](const PrepareProgress&) { return ++calls < stop_at; };
    const common::Status status = Prepare(run, execution_, dir_ / "data", stopping);
    if (status.ok()) break;
    ++points;
    ASSERT_EQ(status.error().code, common::ErrorCode::kAborted) << status.error().message;
    EXPECT_EQ(ExitCodeOfDataError(status.error()), ExitCode::kStopped);
    ASSERT_FALSE(fs::exists(dir_ / "data"));
  }
  EXPECT_GT(points, 5);
  EXPECT_FALSE(fs::exists(dir_ / "data.partial"));
  EXPECT_EQ(Contents("data"), Contents("whole"));
}

TEST_F(PrepareTest, LeftoversOfAKilledAttemptDoNoHarm) {
  const Json run = TextRun(Write("text.txt", MadeUpText(400, 30, 1)), 500);
  ASSERT_TRUE(Prepared(run, "whole").ok());
  Write("data.partial/tasks/old.tokens", "left over");
  Write("data/half", "left over");
  ASSERT_TRUE(Prepared(run, "data").ok());
  EXPECT_EQ(Contents("data"), Contents("whole"));
}

TEST_F(PrepareTest, TasksAreTokenised) {
  const Json run = RunWithTasks();
  const common::Status status = Prepared(run, "data");
  ASSERT_TRUE(status.ok()) << status.error().message;
  const Dataset data = *Dataset::Open(dir_ / "data");
  EXPECT_THAT(data.TaskNames(), ::testing::ElementsAre("wordnet_pos", "wordnet_wic"));
  const TaskData task = *data.OpenTask("wordnet_pos");
  EXPECT_EQ(task.train().size(), 40);
  EXPECT_EQ(task.valid().size(), 8);
  EXPECT_EQ(task.labels()[2], "adjective");
  for (size_t label = 0; label < 4; ++label) {
    EXPECT_EQ(data.tokenizer().Decode(task.label_tokens()[label]), task.labels()[label]);
    EXPECT_EQ(std::ranges::count(task.train().labels(), static_cast<int32_t>(label)), 10) << "a cap keeps the balance";
  }
  EXPECT_THAT(data.tokenizer().Decode(task.train().Input(0)), HasSubstr("part of speech: the"));
  const auto absent = data.OpenTask("glue");
  EXPECT_THAT(absent.error().message, HasSubstr("wordnet_pos wordnet_wic"));
}

// What tasks give beside their text they give alone, for the text that was prepared before.
TEST_F(PrepareTest, TasksAloneAreWrittenByTheTokenizerOfTheirText) {
  Json run = RunWithTasks();
  ASSERT_TRUE(Prepared(run, "together").ok());
  Json alone{{"kind", "prepare"}, {"data", "identity of the text's run"}, {"tasks", run["tasks"]}};
  run.erase("tasks");
  ASSERT_TRUE(Prepared(run, "text").ok());
  execution_["data"] = (dir_ / "text").string();
  const common::Status status = Prepared(alone, "tasks");
  ASSERT_TRUE(status.ok()) << status.error().message;

  const Dataset tasks = *Dataset::Open(dir_ / "tasks");
  EXPECT_TRUE(tasks.parts().empty()) << "there is no text in it";
  EXPECT_THAT(tasks.TaskNames(), ::testing::ElementsAre("wordnet_pos", "wordnet_wic"));
  const auto together = Contents("together"), apart = Contents("tasks");
  EXPECT_EQ(apart.at("spiece.model"), together.at("spiece.model"));
  for (const auto& [name, content] : apart) {
    if (name != "data.json") {
      EXPECT_EQ(content, together.at(name)) << name;
    }
  }
  EXPECT_EQ(tasks.info()["tasks"], Dataset::Open(dir_ / "together")->info()["tasks"]);

  alone["corpus"] = run["corpus"];
  EXPECT_THAT(Failure(alone).message, HasSubstr("corpus"));
  alone.erase("corpus");
  alone["tasks"] = Json::array();
  EXPECT_THAT(Failure(alone).message, HasSubstr("nothing to prepare"));
  execution_.erase("data");
  EXPECT_THAT(Failure(alone).message, HasSubstr("execution.inputs has no 'data'"));
}

TEST_F(PrepareTest, ATrainedTokenizerSpellsTheLabelsOfTheNamedBenchmarks) {
  Json run = TextRun(Write("text.txt", MadeUpText(400, 30, 1)), 500);
  ASSERT_TRUE(Prepared(run, "plain").ok());
  EXPECT_FALSE(Dataset::Open(dir_ / "plain")->tokenizer().CanSpell("not_entailment"));
  run["tokenizer"]["spells"] = {"glue"};
  ASSERT_TRUE(Prepared(run, "spelling").ok());
  const Dataset spelling = *Dataset::Open(dir_ / "spelling");
  for (const Task* task : Tasks()) {
    if (task->benchmark() != "glue") continue;
    for (std::string_view label : task->labels()) EXPECT_TRUE(spelling.tokenizer().CanSpell(label)) << label;
  }
}

TEST_F(PrepareTest, ShuffledLabelsArePermutedInTrainingOnly) {
  Json run = RunWithTasks();
  ASSERT_TRUE(Prepared(run, "true").ok());
  run["tasks"][0]["shuffle_labels"] = true;
  ASSERT_TRUE(Prepared(run, "shuffled").ok());
  const TaskData as_is = *Dataset::Open(dir_ / "true")->OpenTask("wordnet_pos");
  const TaskData shuffled = *Dataset::Open(dir_ / "shuffled")->OpenTask("wordnet_pos");
  const auto list = [](std::span<const int32_t> labels) { return std::vector<int32_t>(labels.begin(), labels.end()); };
  EXPECT_EQ(list(as_is.valid().labels()), list(shuffled.valid().labels()));
  EXPECT_NE(list(as_is.train().labels()), list(shuffled.train().labels()));
  EXPECT_THAT(list(as_is.train().labels()), ::testing::UnorderedElementsAreArray(list(shuffled.train().labels())));
  EXPECT_EQ(as_is.train().Input(7), shuffled.train().Input(7));
}

TEST_F(PrepareTest, AGivenTokenizerIsUsedOrExplained) {
  ASSERT_TRUE(Prepared(TextRun(Write("text.txt", MadeUpText(400, 30, 1)), 500), "first").ok());
  const std::string sha256 = Manifest(dir_ / "first" / "spiece.model")["sha256"];
  Json run = TextRun(Write("other.txt", MadeUpText(300, 20, 2)), 520);
  run["tokenizer"]["model_sha256"] = sha256;
  ASSERT_TRUE(Prepared(run, "second").ok());
  EXPECT_EQ(ReadAll(dir_ / "first" / "spiece.model"), ReadAll(dir_ / "second" / "spiece.model"));
  EXPECT_EQ(Dataset::Open(dir_ / "second")->tokenizer().vocabulary(), 520);
  run["tokenizer"]["vocabulary"] = 499;
  const common::Error narrow = Failure(run);
  EXPECT_EQ(ExitCodeOfDataError(narrow), ExitCode::kConfigurationError);
  EXPECT_THAT(narrow.message, HasSubstr("400 pieces and 100 sentinels do not fit a vocabulary of 499"));
  run["tokenizer"] = {{"vocabulary", 500}, {"model_sha256", Manifest(Write("no.model", "no model"))["sha256"]}};
  const common::Error junk = Failure(run);
  EXPECT_EQ(ExitCodeOfDataError(junk), ExitCode::kDataError);
  EXPECT_THAT(junk.message, HasSubstr("not a SentencePiece model"));
}

TEST_F(PrepareTest, BadDataAreDataErrors) {
  const auto expect = [&](const Json& run, const char* part) {
    const common::Error error = Failure(run);
    EXPECT_EQ(ExitCodeOfDataError(error), ExitCode::kDataError) << error.message;
    EXPECT_THAT(error.message, HasSubstr(part));
  };
  expect(TextRun(Write("empty.txt", ""), 500), "no text");
  expect(TextRun(Write("blank.txt", "\n  \n\t\n"), 500), "no text");
  expect(TextRun(Write("one.txt", "only one document"), 500), "part is empty");
  expect(TextRun(Write("few.txt", "a b\n\nc d\n\ne f\n\ng h\n\ni j\n\nk l\n\nm n\n\no p\n\nq r\n\ns t\n\n"), 5000),
         "lower tokenizer.vocabulary");
  Json run = TextRun(Write("gone.txt", "x"), 500);
  fs::remove(dir_ / "gone.txt");
  expect(run, "gone.txt");
  run = TextRun(Write("changed.txt", MadeUpText(40, 30, 1)), 500);
  Write("changed.txt", MadeUpText(41, 30, 1));
  expect(run, "changed.txt");
  run = TextRun(Write("nowhere.txt", MadeUpText(40, 30, 3)), 500);
  execution_["files"] = Json::object();
  expect(run, "execution.files has no path");
}

TEST_F(PrepareTest, WrongRunsAreConfigurationErrors) {
  const Json good = RunWithTasks();
  const auto expect = [&](const std::string& pointer, const Json& value, const char* part) {
    Json run = good;
    run[Json::json_pointer(pointer)] = value;
    const common::Error error = Failure(run);
    EXPECT_EQ(ExitCodeOfDataError(error), ExitCode::kConfigurationError) << error.message;
    EXPECT_THAT(error.message, HasSubstr(part));
  };
  expect("/corpus/format", "pdf", "run.corpus.format");
  expect("/corpus/document", "page", "run.corpus.document");
  expect("/corpus/validation_fraction", 0.9, "run.corpus.validation_fraction");
  expect("/corpus/files", Json::array(), "run.corpus.files");
  expect("/corpus/files/0/sha256", "abc", "64 lower-case");
  expect("/corpus/langauge", "en", "langauge");
  expect("/tokenizer/vocabulary", 100, "run.tokenizer.vocabulary");
  expect("/tokenizer/spells", Json::array({"glu"}), "there is no benchmark \"glu\"");
  expect("/tasks/0/skip_bad_rows", true, "whose rows belong together");
  expect("/tasks/0/name", "wordnet_poss", "did you mean 'wordnet_pos'");
  expect("/tasks/1/name", "wordnet_pos", "is there twice");
  expect("/tasks/0/files", Json::array({good["tasks"][0]["files"][0]}), "lacks 'data.verb'");
  expect("/corpus/format", "gcide", "one .dict.dz");
  expect("/numerics_version", 99, "numerics_version");
}

TEST_F(PrepareTest, ErrorsThatMayPassAreTriedAgain) {
  EXPECT_EQ(ExitCodeOfDataError(common::ResourceExhausted("disk full")), ExitCode::kCrash);
  EXPECT_EQ(ExitCodeOfDataError(common::PermissionDenied("")), ExitCode::kDataError);
  EXPECT_EQ(ExitCodeOfDataError(common::NotFound("")), ExitCode::kDataError);
}

TEST_F(PrepareTest, AnUnwritableFolderIsAnError) {
  const Json run = TextRun(Write("text.txt", MadeUpText(400, 30, 1)), 500);
  Write("file", "in the way");
  EXPECT_FALSE(Prepare(run, execution_, dir_ / "file" / "data", GoOn).ok());
}

TEST_F(PrepareTest, TheRealDictionaryAndWordnet) {
  const fs::path dict = "/usr/share/dictd", wordnet = "/usr/share/wordnet";
  if (!fs::exists(dict / "gcide.index") || !fs::exists(wordnet / "data.noun"))
    GTEST_SKIP() << "Debian's packages dict-gcide and wordnet-base are not both installed";
  Json tasks = Json::array();
  for (const char* name : {"wordnet_pos", "wordnet_wic"}) {
    Json files = Json::array();
    for (const char* file : {"data.noun", "data.verb", "data.adj", "data.adv"})
      files.push_back(Manifest(wordnet / file));
    tasks.push_back({{"name", name}, {"files", files}});
  }
  const Json run = {
      {"kind", "prepare"},
      {"trainer", "builtin"},
      {"corpus", {{"format", "gcide"}, {"files", {Manifest(dict / "gcide.dict.dz"), Manifest(dict / "gcide.index")}}}},
      {"tokenizer", {{"vocabulary", 512}, {"sample_sentences", 2'000}}},
      {"tasks", tasks}};
  const common::Status status = Prepared(run, "data");
  ASSERT_TRUE(status.ok()) << status.error().message;
  const Dataset data = *Dataset::Open(dir_ / "data");
  EXPECT_EQ(data.info()["text"]["replaced_lines"], 3);
  EXPECT_GT(data.train().tokens(), 50 * data.valid().tokens());
  EXPECT_GT(data.valid().tokens(), 50'000);
  EXPECT_LT(data.info()["train"]["unknown_tokens"].get<double>(), 0.005 * static_cast<double>(data.train().tokens()));
  EXPECT_LE(data.OpenTask("wordnet_pos")->LongestTarget(), 8) << "the labels must fit a short target";
}

}  // namespace
}  // namespace allometry::trainer
