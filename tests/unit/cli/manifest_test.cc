#include "cli/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "common/ids.h"
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
  spec_.mutable_data()->set_text(0, "texts");
  EXPECT_THAT(Resolve().error().message, HasSubstr("not a regular file"));
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
