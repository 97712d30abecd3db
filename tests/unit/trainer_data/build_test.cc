// Building data sets: validation files, duplicates, shards, threads, and data sets made of built ones.
#include <gmock/gmock.h>

#include <map>
#include <set>

#include "common/files.h"
#include "tests/unit/trainer_data/data_fixture.h"
#include "worker/trainer/data/build_progress.h"
#include "worker/trainer/data/data_build.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/data/pretrain_batches.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;
using ::testing::HasSubstr;

class BuildTest : public DataFixture {
 protected:
  void SetUp() override {
    DataFixture::SetUp();
    ::testing::internal::CaptureStderr();
  }
  void TearDown() override {
    ::testing::internal::GetCapturedStderr();
    DataFixture::TearDown();
  }

  common::Result<fs::path> Build(const std::string& out, std::vector<std::string> words) {
    words.insert(words.end(), {"--out", (dir_ / out).string()});
    return BuildDataSet(words);
  }
  Dataset Built(const std::string& out, const std::vector<std::string>& words) {
    const auto built = Build(out, words);
    if (!built) throw std::runtime_error(built.error().message);
    return *Dataset::Open(*built);
  }
  std::string Path(const std::string& name) { return (dir_ / name).string(); }

  static std::vector<std::string> Texts(const Dataset& data, const TokenFile& file) {
    std::vector<std::string> texts;
    for (int64_t i = 0; i < file.documents(); ++i) texts.push_back(data.tokenizer().Decode(file.Document(i)));
    return texts;
  }
  static std::vector<int32_t> All(const TokenFile& file) {
    std::vector<int32_t> ids(static_cast<size_t>(file.tokens()));
    file.Read(0, ids);
    return ids;
  }
  std::map<std::string, std::string> Contents(const std::string& name) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(dir_ / name))
      if (entry.is_regular_file()) files[fs::relative(entry.path(), dir_ / name)] = ReadAll(entry.path());
    return files;
  }

  // A run that prepares the built folder.
  Json BuiltFiles(const std::string& folder) {
    Json files = Json::array();
    for (const auto& entry : fs::directory_iterator(dir_ / folder))
      if (entry.is_regular_file()) files.push_back(Manifest(entry.path()));
    return files;
  }
  Json RunOf(const Json& corpus, int64_t vocabulary = 500) {
    return {
        {"kind", "prepare"}, {"trainer", "builtin"}, {"corpus", corpus}, {"tokenizer", {{"vocabulary", vocabulary}}}};
  }
};

TEST_F(BuildTest, ValidationFilesAreTheValidationPartAndTheirDocumentsLeaveTraining) {
  Write("in/a.txt", MadeUpText(200, 30, 1) + "held out text\n\n");
  Write("in/b.txt", MadeUpText(50, 30, 1) + MadeUpText(100, 30, 2));
  Write("in/v.txt", "held out text\n\nheld out text\n\nanother one\n\n");
  const Dataset data = Built("out", {"--in", Path("in"), "--valid", Path("in/v*"), "--vocabulary", "500"});
  EXPECT_EQ(data.valid().documents(), 2);
  EXPECT_EQ(data.train().documents(), 300);
  const Json& text = data.info()["text"];
  EXPECT_EQ(text["documents"], 354);
  EXPECT_EQ(text["duplicates"], 52);
  EXPECT_EQ(text["duplicates_of_validation"], 2);
  for (const std::string& document : Texts(data, data.train())) EXPECT_NE(document, "held out text");
}

TEST_F(BuildTest, TheSameInputGivesTheSameBytesWhateverTheThreads) {
  Write("in/x/deep.txt", MadeUpText(300, 30, 1));
  Write("in/a.txt", MadeUpText(300, 30, 2));
  const std::vector<std::string> words{"--in", Path("in"), "--vocabulary", "500", "--shard-tokens", "3000"};
  const auto with = [&](const char* threads) {
    std::vector<std::string> all = words;
    all.insert(all.end(), {"--threads", threads});
    return all;
  };
  ASSERT_TRUE(Build("one", with("1")).ok());
  ASSERT_TRUE(Build("five", with("5")).ok());
  EXPECT_GT(Contents("one").size(), 10u);
  EXPECT_EQ(Contents("one"), Contents("five"));
}

TEST_F(BuildTest, ShardsReadAsOneFile) {
  Write("a.txt", MadeUpText(400, 30, 1));
  const std::vector<std::string> words{"--in", Path("a.txt"), "--vocabulary", "500"};
  const Dataset whole = Built("whole", words);
  std::vector<std::string> cut = words;
  cut.insert(cut.end(), {"--shard-tokens", "1000"});
  const Dataset shards = Built("shards", cut);
  EXPECT_EQ(whole.info()["train"]["shards"], 1);
  EXPECT_GT(shards.info()["train"]["shards"], 10);
  EXPECT_EQ(All(whole.train()), All(shards.train()));
  EXPECT_EQ(All(whole.valid()), All(shards.valid()));
  ASSERT_EQ(whole.train().documents(), shards.train().documents());
  for (int64_t i = 0; i <= whole.train().documents(); ++i)
    ASSERT_EQ(whole.train().Offset(i), shards.train().Offset(i)) << i;
  for (int64_t i = 0; i < whole.train().documents(); ++i)
    ASSERT_EQ(whole.train().Document(i), shards.train().Document(i)) << i;
  const std::vector<int32_t> all = All(whole.train());
  std::vector<int32_t> some(700);
  for (size_t first = 0; first + some.size() <= all.size(); first += 97) {
    shards.train().Read(static_cast<int64_t>(first), some);
    ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin() + static_cast<int64_t>(first))) << first;
  }
  EXPECT_THROW(shards.train().Read(shards.train().tokens() - 1, some), std::out_of_range);
  for (const auto& entry : fs::directory_iterator(dir_ / "shards"))
    EXPECT_TRUE(entry.path().extension() != ".tokens" || entry.file_size() <= 2'000u) << entry.path();
}

TEST_F(BuildTest, ADocumentLongerThanAShardHasOneOfItsOwn) {
  Write("a.txt", MadeUpText(40, 30, 1) + "word " + MadeUpText(1, 3000, 7) + MadeUpText(40, 30, 2));
  const Dataset data = Built("out", {"--in", Path("a.txt"), "--vocabulary", "300", "--shard-tokens", "500"});
  EXPECT_EQ(data.train().documents() + data.valid().documents(), 81);
  int long_ones = 0;
  for (const auto& entry : fs::directory_iterator(dir_ / "out")) {
    if (entry.path().extension() != ".tokens" || entry.file_size() <= 2 * 500) continue;
    ++long_ones;
    EXPECT_EQ(fs::file_size(fs::path(entry.path()).replace_extension(".index")), 2u * 8) << "one document";
  }
  EXPECT_EQ(long_ones, 1);
}

TEST_F(BuildTest, EveryFormatGivesTheSameDataSet) {
  std::string text, jsonl, tsv = "n\ttext\n", wiki;
  for (int i = 0; i < 300; ++i) {
    std::string document = MadeUpText(1, 20, static_cast<uint64_t>(i));
    document.resize(document.find_last_not_of('\n') + 1);
    text += document + "\n\n";
    jsonl += Json{{"body", document}}.dump() + "\n";
    tsv += std::to_string(i) + "\t" + document + "\n";
    wiki += "<doc id=\"" + std::to_string(i) + "\" url=\"\" title=\"\">\n" + document + "\n</doc>\n";
  }
  const std::vector<int32_t> expected =
      All(Built("text", {"--in", Write("a.txt", text), "--vocabulary", "400"}).train());
  EXPECT_EQ(All(Built("jsonl", {"--in", Write("a.jsonl", jsonl), "--field", "body", "--vocabulary", "400"}).train()),
            expected);
  EXPECT_EQ(All(Built("tsv", {"--in", Write("a.tsv", tsv), "--vocabulary", "400"}).train()), expected);
  EXPECT_EQ(All(Built("wiki", {"--in", Write("a", wiki), "--vocabulary", "400"}).train()), expected);
}

TEST_F(BuildTest, BadRowsStopTheBuildOrAreCounted) {
  const std::string rows = [] {
    std::string all;
    for (int i = 0; i < 200; ++i)
      all += i == 120 ? "{\"txt\": 1}\n" : Json{{"text", MadeUpText(1, 20, static_cast<uint64_t>(i))}}.dump() + "\n";
    return all;
  }();
  const std::string path = Write("a.jsonl", rows);
  const auto failed = Build("out", {"--in", path, "--vocabulary", "400"});
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message, path + " line 121: the row has no field 'text'");
  EXPECT_FALSE(fs::exists(dir_ / "out.partial"));
  const Dataset data = Built("out", {"--in", path, "--vocabulary", "400", "--skip-bad-rows"});
  EXPECT_EQ(data.info()["text"]["bad_rows"], 1);
  EXPECT_EQ(data.info()["text"]["documents"], 199);
}

TEST_F(BuildTest, WhatIsThereIsKeptOrRefused) {
  Write("a.txt", MadeUpText(200, 30, 1));
  const std::vector<std::string> words{"--in", Path("a.txt"), "--vocabulary", "400"};
  ASSERT_TRUE(Build("out", words).ok());
  const auto before = Contents("out");
  ASSERT_TRUE(Build("out", words).ok()) << "the same again is done already";
  const auto other = Build("out", {"--in", Path("a.txt"), "--vocabulary", "401"});
  EXPECT_EQ(other.error().code, common::ErrorCode::kAlreadyExists);
  EXPECT_THAT(other.error().message, HasSubstr("out' holds a data set that was built from other files or with other "
                                               "options"));
  EXPECT_EQ(Contents("out"), before);
  Write("mine/notes.txt", "do not touch");
  EXPECT_THAT(Build("mine", words).error().message, HasSubstr("is not empty and holds no data set"));
  EXPECT_EQ(ReadAll(dir_ / "mine/notes.txt"), "do not touch");
}

TEST_F(BuildTest, MistakesOfTheCommandAreExplained) {
  Write("a.txt", MadeUpText(20, 30, 1));
  const auto message = [&](std::vector<std::string> words) {
    const auto built = Build("out", std::move(words));
    EXPECT_FALSE(built.ok());
    return built.ok() ? "" : built.error().message;
  };
  EXPECT_EQ(message({}), "--in is missing");
  EXPECT_THAT(message({"--in", Path("*.md")}), HasSubstr("--in: no file matches"));
  EXPECT_THAT(message({"--in", Path("a.txt"), "--feild", "x"}), HasSubstr("did you mean '--field'"));
  EXPECT_EQ(message({"--in", Path("a.txt"), "--field", "x"}), "--field is for --format jsonl, and the files are text");
  EXPECT_THAT(message({"--in", Path("a.txt"), "--format", "pdf"}), HasSubstr("it takes auto, text, jsonl"));
  EXPECT_THAT(message({"--in", Path("a.txt"), "--validation-fraction", "2"}), HasSubstr("a number from 1e-06 to 0.5"));
  EXPECT_THAT(message({"--in", Path("a.txt"), "--valid", Path("a.txt")}), HasSubstr("that --valid does not name too"));
  EXPECT_THAT(message({"--in", Path("a.txt"), "--threads"}), HasSubstr("--threads has no value"));
}

TEST_F(BuildTest, ATokenizerCanBeTrainedApart) {
  Write("a.txt", MadeUpText(300, 30, 1));
  const auto model = BuildTokenizer({"--in", Path("a.txt"), "--out", Path("own.model"), "--vocabulary", "400"});
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_EQ(Tokenizer::Load(*model, 400)->pieces(), 300);
  EXPECT_FALSE(fs::exists(dir_ / "own.model.partial"));
  const Dataset data = Built("out", {"--in", Path("a.txt"), "--tokenizer", Path("own.model"), "--vocabulary", "512"});
  EXPECT_EQ(ReadAll(dir_ / "out/spiece.model"), ReadAll(dir_ / "own.model"));
  EXPECT_EQ(data.tokenizer().vocabulary(), 512);
}

TEST_F(BuildTest, APreparationOfABuiltDataSetHasItsBatches) {
  Write("a.txt", MadeUpText(400, 30, 1));
  const Dataset built = Built("built", {"--in", Path("a.txt"), "--vocabulary", "500", "--shard-tokens", "3000"});
  const Json run = RunOf({{"format", "built"}, {"files", BuiltFiles("built")}});
  const common::Status status = Prepare(run, execution_, dir_ / "data", nullptr);
  ASSERT_TRUE(status.ok()) << status.error().message;
  const Dataset data = *Dataset::Open(dir_ / "data");
  EXPECT_EQ(fs::hard_link_count(dir_ / "data/train-00001.tokens"), 2u);
  EXPECT_EQ(data.unigram_nll(), built.unigram_nll());
  EXPECT_EQ(data.info()["text"], built.info()["text"]);
  EXPECT_EQ(data.info()["built_from"][0], built.info()["recipe"]);
  const auto rows = [](const Dataset& d) {
    const auto objective = *MakeObjective({.input_length = 64}, d.tokenizer().pieces());
    const PretrainBatches batches = *PretrainBatches::Create(d.parts(), objective, Join::kEndMark, 8, 5);
    std::vector<int64_t> inputs(static_cast<size_t>(8 * batches.lengths().inputs)),
        targets(static_cast<size_t>(8 * batches.lengths().targets));
    batches.Fill(3, 0, 8, batches.lengths().inputs, batches.lengths().targets, inputs.data(), targets.data());
    return std::make_pair(inputs, targets);
  };
  EXPECT_EQ(rows(data), rows(built));
}

TEST_F(BuildTest, BuiltFilesThatDoNotFitAreRefused) {
  Write("a.txt", MadeUpText(200, 30, 1));
  Built("built", {"--in", Path("a.txt"), "--vocabulary", "450"});
  const auto failure = [&](const Json& run) {
    const common::Status status = Prepare(run, execution_, dir_ / "data", nullptr);
    EXPECT_FALSE(status.ok());
    return status ? "" : status.error().message;
  };
  const Json files = BuiltFiles("built");
  EXPECT_THAT(failure(RunOf({{"format", "built"}, {"files", files}}, 600)), HasSubstr("has a vocabulary of 450"));
  Json fewer = files;
  for (size_t i = 0; i < fewer.size(); ++i)
    if (fewer[i]["name"] == "train-00000.index") fewer.erase(i--);
  EXPECT_THAT(failure(RunOf({{"format", "built"}, {"files", fewer}}, 450)),
              HasSubstr("lacks the file 'train-00000.index'"));
  const std::string bytes = ReadAll(dir_ / "built/train-00000.tokens");
  Write("built/train-00000.tokens", std::string(bytes.size(), '\1'));
  EXPECT_THAT(failure(RunOf({{"format", "built"}, {"files", BuiltFiles("built")}}, 450)),
              HasSubstr("is not the file that its data.json names"));
}

TEST_F(BuildTest, AMixtureHasItsPartsWithTheirRates) {
  Write("a.txt", MadeUpText(200, 30, 1));
  Write("b.txt", MadeUpText(300, 30, 2));
  ASSERT_TRUE(BuildTokenizer({"--in", Path("?.txt"), "--out", Path("m"), "--vocabulary", "500"}).ok());
  const Dataset a = Built("a", {"--in", Path("a.txt"), "--tokenizer", Path("m"), "--vocabulary", "500"});
  const Dataset b = Built("b", {"--in", Path("b.txt"), "--tokenizer", Path("m"), "--vocabulary", "500"});
  const Json parts = {{{"name", "first"}, {"rate", 3}, {"files", BuiltFiles("a")}},
                      {{"name", "second"}, {"files", BuiltFiles("b")}}};
  const Json run = RunOf({{"format", "mixture"}, {"parts", parts}});
  const common::Status status = Prepare(run, execution_, dir_ / "data", nullptr);
  ASSERT_TRUE(status.ok()) << status.error().message;
  const Dataset data = *Dataset::Open(dir_ / "data");
  ASSERT_EQ(data.parts().size(), 2u);
  EXPECT_EQ(data.parts()[0].name, "first");
  EXPECT_EQ(data.parts()[0].rate, 3);
  EXPECT_EQ(data.parts()[1].rate, 1);
  EXPECT_EQ(All(data.parts()[0].train), All(a.train()));
  EXPECT_EQ(All(data.parts()[1].train), All(b.train()));
  EXPECT_EQ(All(data.parts()[1].valid), All(b.valid()));
  EXPECT_EQ(All(data.train()), All(a.train())) << "train() is the first part's";
  EXPECT_EQ(data.info()["train"]["tokens"], a.train().tokens() + b.train().tokens());
  // Shares of the parts' tokens are those of their rates, but for the one that is added to each count.
  const double tokens = static_cast<double>(a.train().tokens() + b.train().tokens());
  double eos_free = 0;
  for (int id = 2; id < 400; ++id) eos_free += std::exp(-data.unigram_nll()[static_cast<size_t>(id)]);
  EXPECT_NEAR(eos_free, 1, 1e-9);
  const auto share = [](const Dataset& d, int32_t id) {
    const std::vector<int32_t> all = All(d.train());
    return static_cast<double>(std::ranges::count(all, id)) / static_cast<double>(all.size());
  };
  const int32_t id = All(a.train())[0];
  const double mixed = 0.75 * share(a, id) + 0.25 * share(b, id);
  double text_share = 0;  // of tokens that are text
  for (int32_t i = 2; i < 400; ++i) text_share += 0.75 * share(a, i) + 0.25 * share(b, i);
  EXPECT_NEAR(std::exp(-data.unigram_nll()[static_cast<size_t>(id)]),
              (mixed * tokens + 1) / (text_share * tokens + 398), 1e-9);
}

TEST_F(BuildTest, PartsOfAMixtureNeedOneTokenizer) {
  Write("a.txt", MadeUpText(200, 30, 1));
  Write("b.txt", MadeUpText(300, 30, 2));
  Built("a", {"--in", Path("a.txt"), "--vocabulary", "450"});
  Built("b", {"--in", Path("b.txt"), "--vocabulary", "450"});
  const Json parts = {{{"name", "a"}, {"files", BuiltFiles("a")}}, {{"name", "b"}, {"files", BuiltFiles("b")}}};
  const common::Status status =
      Prepare(RunOf({{"format", "mixture"}, {"parts", parts}}, 450), execution_, dir_ / "data", nullptr);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.error().message, HasSubstr("part 'b' has another tokenizer than part 'a'"));
}

TEST_F(BuildTest, TheLayoutWithoutShardNumbersIsRead) {
  Write("a.txt", MadeUpText(200, 30, 1));
  const Dataset data = Built("out", {"--in", Path("a.txt"), "--vocabulary", "450"});
  fs::create_directory(dir_ / "old");
  for (const auto& [name, bytes] : Contents("out")) {
    std::string old = name;
    if (const size_t number = old.find("-00000"); number != old.npos) old.erase(number, 6);
    Write("old/" + old, bytes);
  }
  Json info = data.info();
  info["format_version"] = 1;
  for (const char* side : {"train", "valid"}) info[side].erase("shards");
  Write("old/data.json", info.dump());
  const auto old = Dataset::Open(dir_ / "old");
  ASSERT_TRUE(old.ok()) << old.error().message;
  EXPECT_EQ(All(old->train()), All(data.train()));
  EXPECT_EQ(old->parts().size(), 1u);
}

TEST(ProgressLine, FitsATerminalAndSaysHowLong) {
  const PrepareProgress progress{
      .stage = "tokenize", .done = 30, .total = 90, .text_bytes = 50'000'000, .tokens = 21'000'000};
  EXPECT_EQ(ProgressLine(progress, 10, 10), "tokenize         33 %     5.0 MB/s  2.1M tokens/s  left 0:30");
  const PrepareProgress large{.stage = kTrainTokenizerStage,
                              .done = 1,
                              .total = 1'000'000'000'000,
                              .text_bytes = int64_t{1} << 60,
                              .tokens = int64_t{1} << 60};
  EXPECT_LE(ProgressLine(large, 1e-3, 0).size(), 79u);
  EXPECT_EQ(ProgressLine({.stage = "hash", .done = 0, .total = 10}, 0, 0), "hash              0 %");
}

}  // namespace
}  // namespace allometry::trainer
