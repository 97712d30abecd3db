#include "worker/trainer/exchange/huggingface_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/files.h"
#include "tests/unit/engine/temporary_folder.h"
#include "tests/unit/exchange/exchange_cases.h"
#include "worker/trainer/checkpoint/checkpoint_store.h"
#include "worker/trainer/engine/model_folder.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::ErrorCode;
using common::Json;
using testing::HasSubstr;

class HuggingFaceFolderTest : public testing::Test {
 protected:
  HuggingFaceFolderTest() {
    fs::create_directories(model_);
    EXPECT_TRUE(WriteModelFolder(model_, T5(), "fp32", FreshWeights(T5())));
  }
  common::Status Export() { return ExportToHuggingFace(model_, {}, theirs_); }
  common::Status Import() { return ImportFromHuggingFace(theirs_, back_); }
  static std::string Bytes(const fs::path& path) { return *common::ReadFile(path); }
  static void Write(const fs::path& path, const std::string& bytes) {
    ASSERT_TRUE(common::WriteFileAtomically(path, bytes));
  }

  TemporaryFolder folder_;
  fs::path model_ = folder_ / "model", theirs_ = folder_ / "theirs", back_ = folder_ / "back";
};

TEST_F(HuggingFaceFolderTest, AModelComesBackByteForByte) {
  Write(model_ / "spiece.model", "pieces");
  ASSERT_TRUE(Export());
  ASSERT_TRUE(Import());
  for (const char* file : {"model.json", "model.safetensors", "spiece.model"})
    EXPECT_EQ(Bytes(back_ / file), Bytes(model_ / file)) << file;
}

TEST_F(HuggingFaceFolderTest, TheTokenizerMayLieElsewhere) {
  Write(folder_ / "spiece.model", "other pieces");
  ASSERT_TRUE(ExportToHuggingFace(model_, folder_.path(), theirs_));
  EXPECT_EQ(Bytes(theirs_ / "spiece.model"), "other pieces");
  EXPECT_THAT(ExportToHuggingFace(model_, folder_ / "none", folder_ / "x").error().message, HasSubstr("--tokenizer"));
}

TEST_F(HuggingFaceFolderTest, ACheckpointIsExportedByWhatItsRunSays) {
  const Json run{{"contract_version", 1},
                 {"run",
                  {{"kind", "pretrain"},
                   {"steps", 9},
                   {"model", {{"architecture", "transformer"}, {"shape", ShapeToJson(kSmallShape)}}}}},
                 {"execution", Json::object()}};
  Write(folder_ / "run.json", run.dump());
  Tensors tensors{{"optimizer/steps", at::zeros({1})}};
  for (const auto& [name, tensor] : FreshWeights(T5())) tensors["weights/" + name] = tensor;
  CheckpointStore store(folder_ / "checkpoint", ParseRunConfig(run)->run_sha256, [](const std::string&) {});
  const fs::path step = *store.Save({4, tensors, Json::object()});
  EXPECT_EQ(ReadTrainedModel(step)->step, 4);
  const auto exported = ExportToHuggingFace(step, {}, theirs_);
  ASSERT_TRUE(exported) << exported.error().message;
  ASSERT_TRUE(Import());
  EXPECT_EQ(Bytes(back_ / "model.safetensors"), Bytes(model_ / "model.safetensors"));

  fs::remove(folder_ / "run.json");
  EXPECT_THAT(ReadTrainedModel(step).error().message, HasSubstr("take the run's 'model' folder"));
}

TEST_F(HuggingFaceFolderTest, ShardsAreReadByTheirIndex) {
  ASSERT_TRUE(Export());
  TensorFile whole = *ReadSafetensors(theirs_ / "model.safetensors");
  fs::remove(theirs_ / "model.safetensors");
  EXPECT_THAT(Import().error().message, HasSubstr("save_pretrained"));
  Json map = Json::object();
  TensorFile parts[2];
  for (const auto& [name, tensor] : whole.tensors) {
    const size_t part = map.size() % 2;
    parts[part].tensors[name] = tensor;
    map[name] = "part-" + std::to_string(part) + ".safetensors";
  }
  for (size_t i = 0; i < 2; ++i)
    ASSERT_TRUE(WriteSafetensors(theirs_ / ("part-" + std::to_string(i) + ".safetensors"), parts[i]));
  const fs::path index = theirs_ / "model.safetensors.index.json";
  Write(index, Json{{"weight_map", map}}.dump());
  ASSERT_TRUE(Import());
  EXPECT_EQ(Bytes(back_ / "model.safetensors"), Bytes(model_ / "model.safetensors"));

  fs::remove_all(back_);
  map["shared.weight"] = "../model/model.safetensors";
  Write(index, Json{{"weight_map", map}}.dump());
  EXPECT_THAT(Import().error().message, HasSubstr("which is no file of the folder"));
  Write(index, "{}");
  EXPECT_THAT(Import().error().message, HasSubstr("weight_map"));
}

TEST_F(HuggingFaceFolderTest, DamagedFilesLeaveNothingBehind) {
  ASSERT_TRUE(Export());
  const std::string tensors = Bytes(theirs_ / "model.safetensors");
  Write(theirs_ / "model.safetensors", tensors.substr(0, tensors.size() - 1));
  EXPECT_EQ(Import().error().code, ErrorCode::kDataLoss);
  Write(theirs_ / "model.safetensors", tensors);
  Write(theirs_ / "config.json", "{");
  EXPECT_THAT(Import().error().message, HasSubstr("config.json"));
  Write(model_ / "model.json", "{}");
  fs::remove_all(theirs_);
  EXPECT_THAT(Export().error().message, HasSubstr("no model of format 1"));
  fs::remove(model_ / "model.json");
  EXPECT_THAT(Export().error().message, HasSubstr("holds no model"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 1);  // the model alone
}

TEST_F(HuggingFaceFolderTest, AFolderInUseIsKept) {
  fs::create_directories(theirs_);
  ASSERT_TRUE(Export());  // an empty one will do
  const auto again = Export();
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, ErrorCode::kAlreadyExists);
}

}  // namespace
}  // namespace allometry::trainer
