#include "cli/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "common/ids.h"
#include "common/json.h"
#include "common/sha256.h"

namespace allometry::cli {
namespace {

namespace fs = std::filesystem;
using common::ErrorCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("allo-manifest-" + common::RandomUuid());
    fs::create_directories(folder_ / "texts");
    data_ = {folder_ / "dictd", folder_ / "wordnet"};
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const fs::path& path, const std::string& text) {
    fs::create_directories((folder_ / path).parent_path());
    std::ofstream(folder_ / path) << text;
  }
  common::Result<std::vector<v1::ManifestFile>> Resolve() { return ResolveManifest(spec_, folder_, data_); }

  fs::path folder_;
  DataFolders data_;
  v1::SweepSpec spec_;
};

TEST_F(ManifestTest, FindsFilesRelativeToTheSweepFileOnceAndSorted) {
  Write("texts/b.txt", "two");
  Write("texts/a.txt", "one");
  spec_.mutable_data()->add_text("texts/*.txt");
  spec_.mutable_data()->add_text("texts/a*");
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  ASSERT_EQ(manifest->size(), 2u);
  EXPECT_EQ((*manifest)[0].name(), "a.txt");
  EXPECT_EQ((*manifest)[0].role(), "corpus");
  EXPECT_EQ((*manifest)[0].bytes(), 3);
  EXPECT_EQ((*manifest)[0].sha256(), common::Sha256Hex("one"));
  EXPECT_EQ((*manifest)[1].path(), (folder_ / "texts/b.txt").string());
}

TEST_F(ManifestTest, NamesThePatternThatMatchesNothing) {
  spec_.mutable_data()->add_text("texts/*.md");
  const auto manifest = Resolve();
  ASSERT_FALSE(manifest.ok());
  EXPECT_EQ(manifest.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(manifest.error().message, HasSubstr("texts/*.md"));
}

TEST_F(ManifestTest, RefusesEmptyFilesAndFolders) {
  Write("texts/empty.txt", "");
  spec_.mutable_data()->add_text("texts/empty.txt");
  EXPECT_THAT(Resolve().error().message, HasSubstr("empty.txt is empty"));
  fs::remove(folder_ / "texts/empty.txt");
  spec_.mutable_data()->set_text(0, "texts");
  EXPECT_THAT(Resolve().error().message, HasSubstr("data.text: there is no file in the folder"));
}

TEST_F(ManifestTest, AFolderStandsForItsFiles) {
  Write("texts/b.txt", "two");
  Write("texts/deep/er/a.txt", "one");
  Write("texts/.hidden/x.txt", "no");
  Write("texts/.part", "no");
  spec_.mutable_data()->add_text("texts");
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  ASSERT_EQ(manifest->size(), 2u);
  EXPECT_EQ((*manifest)[0].name(), "b.txt");
  EXPECT_EQ((*manifest)[1].name(), "a.txt");
}

TEST_F(ManifestTest, ValidationFilesAreNoTrainingText) {
  Write("texts/a.txt", "one");
  Write("texts/valid.txt", "two");
  spec_.mutable_data()->add_text("texts");
  spec_.mutable_data()->add_valid("texts/valid*");
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  ASSERT_EQ(manifest->size(), 2u);
  EXPECT_EQ((*manifest)[0].role(), "corpus");
  EXPECT_EQ((*manifest)[0].name(), "a.txt");
  EXPECT_EQ((*manifest)[1].role(), "valid");
  EXPECT_EQ((*manifest)[1].name(), "valid.txt");
  spec_.mutable_data()->set_text(0, "texts/valid.txt");
  EXPECT_THAT(Resolve().error().message, HasSubstr("that data.valid does not name too"));
}

// A folder as `allo data build` leaves it, with one shard whose content is made up.
class BuiltManifestTest : public ManifestTest {
 protected:
  void WriteBuilt(const std::string& name, const std::string& tokenizer, int64_t vocabulary = 500) {
    common::Json files = common::Json::object();
    const auto add = [&](const std::string& file, const std::string& bytes) {
      Write(name + "/" + file, bytes);
      files[file] = {{"bytes", bytes.size()}, {"sha256", common::Sha256Hex(bytes)}};
    };
    add("spiece.model", tokenizer);
    add("train-00000.tokens", name + " tokens");
    add("tasks/own.train.tokens", "task");
    const common::Json info{{"format_version", 2}, {"tokenizer", {{"vocabulary", vocabulary}}}, {"files", files}};
    Write(name + "/data.json", info.dump());
  }
};

TEST_F(BuiltManifestTest, ListsTheFilesOfABuiltDataSet) {
  WriteBuilt("built", "model");
  spec_.mutable_data()->set_path("built");
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  ASSERT_EQ(manifest->size(), 3u);
  for (const v1::ManifestFile& file : *manifest) {
    EXPECT_EQ(file.role(), "dataset");
    EXPECT_EQ(file.sha256(), *common::Sha256HexOfFile(folder_ / "built" / file.name()));
    EXPECT_EQ(file.path(), (folder_ / "built" / file.name()).string());
  }
  EXPECT_EQ(manifest->back().name(), "data.json");
}

TEST_F(BuiltManifestTest, TheSweepTakesTheVocabularyOfItsDataSet) {
  WriteBuilt("built", "model", 777);
  spec_.mutable_data()->set_path("built");
  ASSERT_TRUE(CompleteFromData(folder_, &spec_).ok());
  EXPECT_EQ(spec_.tokenizer().vocabulary(), 777);
  ASSERT_TRUE(CompleteFromData(folder_, &spec_).ok()) << "the same is no contradiction";
  spec_.mutable_tokenizer()->set_vocabulary(778);
  EXPECT_THAT(CompleteFromData(folder_, &spec_).error().message,
              HasSubstr("tokenizer.vocabulary is 778, and the data set"));
}

TEST_F(BuiltManifestTest, RefusesWhatIsNoWholeDataSet) {
  spec_.mutable_data()->set_path("built");
  EXPECT_EQ(Resolve().error().code, ErrorCode::kNotFound);
  EXPECT_THAT(Resolve().error().message, HasSubstr("it has no data.json; 'allo data build' makes one"));
  WriteBuilt("built", "model");
  Write("built/train-00000.tokens", "short");
  EXPECT_THAT(Resolve().error().message,
              HasSubstr("'train-00000.tokens' has 5 bytes, and data.json says 12: build it again"));
  fs::remove(folder_ / "built/train-00000.tokens");
  EXPECT_THAT(Resolve().error().message, HasSubstr("lacks 'train-00000.tokens'"));
  Write("built/data.json", "{}");
  EXPECT_THAT(Resolve().error().message, HasSubstr("has a damaged data.json"));
}

TEST_F(BuiltManifestTest, AMixtureHasARoleAPartAndOneTokenizer) {
  WriteBuilt("one", "model");
  WriteBuilt("two", "model");
  spec_.mutable_data()->add_mixture()->set_path("one/");
  v1::DataPartSpec* second = spec_.mutable_data()->add_mixture();
  second->set_path("two");
  second->set_name("books");
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  ASSERT_EQ(manifest->size(), 6u);
  EXPECT_EQ(manifest->front().role(), "dataset:one");
  EXPECT_EQ(manifest->back().role(), "dataset:books");
  WriteBuilt("two", "other");
  EXPECT_THAT(Resolve().error().message, HasSubstr("two' has another tokenizer than"));
}

TEST_F(ManifestTest, NamesTheMissingDebianPackage) {
  spec_.mutable_data()->set_corpus("gcide");
  EXPECT_THAT(Resolve().error().message, HasSubstr("apt-get install dict-gcide"));
  Write("dictd/gcide.dict.dz", "x");
  Write("dictd/gcide.index", "y");
  spec_.mutable_finetuning()->add_tasks()->set_name("wordnet_pos");
  EXPECT_THAT(Resolve().error().message, HasSubstr("apt-get install wordnet-base"));
  for (const char* name : {"data.adj", "data.adv", "data.noun", "data.verb"}) Write(fs::path("wordnet") / name, name);
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_EQ(manifest->size(), 6u);
  EXPECT_EQ(manifest->back().role(), "task:wordnet_pos");
}

TEST_F(ManifestTest, TakesTheTokenizersModel) {
  Write("texts/a.txt", "one");
  Write("own.model", "model");
  spec_.mutable_data()->add_text("texts/a.txt");
  spec_.mutable_tokenizer()->set_model("own.model");
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_EQ(manifest->back().role(), "tokenizer");
  EXPECT_EQ(manifest->back().sha256(), common::Sha256Hex("model"));
}

std::vector<std::string> NamesOfRole(const std::vector<v1::ManifestFile>& manifest, const std::string& role) {
  std::vector<std::string> names;
  for (const v1::ManifestFile& file : manifest)
    if (file.role() == role) names.push_back(file.name());
  return names;
}

TEST_F(ManifestTest, FindsBenchmarksBelowTheDataRoot) {
  spec_.set_data_root("root");
  Write("root/text.txt", "one");
  spec_.mutable_data()->add_text("text.txt");
  Write("root/tasks/glue/CoLA/train.tsv", "a");
  Write("root/tasks/glue/CoLA/dev.tsv.xz", "b");
  Write("root/SuperGLUE/CB/train.jsonl", "c");
  Write("root/SuperGLUE/CB/val.jsonl", "d");
  Write("root/squad/train-v1.1.json", "e");
  Write("root/squad/dev-v1.1.json", "f");
  for (const char* name : {"glue_cola", "superglue_cb", "squad"})
    spec_.mutable_finetuning()->add_tasks()->set_name(name);
  const auto manifest = Resolve();
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_THAT(NamesOfRole(*manifest, "task:glue_cola"), ElementsAre("train.tsv", "dev.tsv"))
      << "a packed file by the name that its reader knows";
  EXPECT_THAT(NamesOfRole(*manifest, "task:superglue_cb"), ElementsAre("train.jsonl", "val.jsonl"));
  EXPECT_THAT(NamesOfRole(*manifest, "task:squad"), ElementsAre("train-v1.1.json", "dev-v1.1.json"));
  EXPECT_EQ(manifest->back().path(), (folder_ / "root/squad/dev-v1.1.json").string());
}

TEST_F(ManifestTest, SaysWhereATaskWasLookedForAndWhatItLacks) {
  Write("text.txt", "one");
  spec_.mutable_data()->add_text("text.txt");
  v1::TaskSpec* task = spec_.mutable_finetuning()->add_tasks();
  task->set_name("glue_rte");
  EXPECT_EQ(Resolve().error().code, ErrorCode::kNotFound);
  EXPECT_THAT(Resolve().error().message, HasSubstr("tasks/glue/RTE"));
  task->set_folder("mine");
  EXPECT_THAT(Resolve().error().message, HasSubstr("there is no folder"));
  Write("mine/train.tsv", "a");
  EXPECT_THAT(Resolve().error().message, HasSubstr("lacks the file 'dev.tsv'"));
  Write("mine/dev.tsv", "b");
  EXPECT_TRUE(Resolve().ok());
}

TEST_F(ManifestTest, TakesWhicheverLayoutIsWhole) {
  Write("text.txt", "one");
  spec_.mutable_data()->add_text("text.txt");
  spec_.mutable_finetuning()->add_tasks()->set_name("glue_mrpc");
  Write("glue/MRPC/msr_paraphrase_train.txt", "a");
  Write("glue/MRPC/msr_paraphrase_test.txt", "b");
  EXPECT_THAT(NamesOfRole(*Resolve(), "task:glue_mrpc"),
              ElementsAre("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"));
  Write("glue/MRPC/dev_ids.tsv", "c");
  EXPECT_THAT(NamesOfRole(*Resolve(), "task:glue_mrpc"), ElementsAre("msr_paraphrase_train.txt", "dev_ids.tsv"));
}

TEST_F(ManifestTest, TakesTheFilesOfATaskOfOnesOwn) {
  Write("text.txt", "one");
  spec_.mutable_data()->add_text("text.txt");
  v1::TaskSpec* task = spec_.mutable_finetuning()->add_tasks();
  task->set_name("haiku");
  task->set_train("haiku/train.jsonl");
  task->set_valid("haiku/valid.jsonl");
  EXPECT_THAT(Resolve().error().message, HasSubstr("haiku/train.jsonl is not a regular file"));
  Write("haiku/train.jsonl", "a");
  Write("haiku/valid.jsonl", "b");
  EXPECT_THAT(NamesOfRole(*Resolve(), "task:haiku"), ElementsAre("train.jsonl", "valid.jsonl"));
}

}  // namespace
}  // namespace allometry::cli
