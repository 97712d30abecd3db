#include "worker/trainer/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "common/files.h"
#include "common/sha256.h"
#include "tests/unit/engine/temporary_folder.h"

namespace allometry::trainer {
namespace {

using testing::HasSubstr;

TensorFile Sample() {
  TensorFile file;
  file.tensors["floats"] = at::arange(6, at::kFloat).view({2, 3}) / 3;
  file.tensors["halves"] = at::arange(5, at::kFloat).to(at::kBFloat16);
  file.tensors["longs"] = at::arange(4, at::kLong) - 2;
  file.tensors["bytes"] = at::arange(3, at::kByte);
  file.tensors["flags"] = at::arange(3, at::kByte).to(at::kBool);
  file.tensors["doubles"] = at::full({1}, 0.1, at::kDouble);
  file.tensors["scalar"] = at::full({}, 7, at::kInt);
  file.tensors["empty"] = at::empty({0, 4});
  file.tensors["transposed"] = at::arange(6, at::kFloat).view({2, 3}).t();
  file.metadata = {{"format", "pt"}, {"note", "a \"quoted\" word"}};
  return file;
}

std::string BytesOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(SafetensorsTest, ReadsWhatItWrote) {
  TemporaryFolder folder;
  const TensorFile written = Sample();
  auto sha256 = WriteSafetensors(folder / "t", written);
  ASSERT_TRUE(sha256) << sha256.error().message;
  EXPECT_EQ(*sha256, *common::Sha256HexOfFile(folder / "t"));
  auto read = ReadSafetensors(folder / "t");
  ASSERT_TRUE(read) << read.error().message;
  ASSERT_EQ(read->tensors.size(), written.tensors.size());
  for (const auto& [name, tensor] : written.tensors) {
    EXPECT_EQ(read->tensors.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read->tensors.at(name), tensor)) << name;
  }
  EXPECT_EQ(read->metadata, written.metadata);
}

TEST(SafetensorsTest, EqualContentGivesEqualBytes) {
  TemporaryFolder folder;
  EXPECT_EQ(*WriteSafetensors(folder / "a", Sample()), *WriteSafetensors(folder / "b", Sample()));
}

// A file put together by hand after the format's description, not by the writer.
TEST(SafetensorsTest, ReadsAHandMadeFile) {
  TemporaryFolder folder;
  const std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )";
  const uint64_t length = header.size();
  const float values[2] = {1.5f, -2.0f};
  std::string bytes(reinterpret_cast<const char*>(&length), 8);
  bytes += header + std::string(reinterpret_cast<const char*>(values), 8);
  std::ofstream(folder / "t", std::ios::binary) << bytes;
  auto read = ReadSafetensors(folder / "t");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->tensors.at("w")[0].item<float>(), 1.5f);
  EXPECT_EQ(read->tensors.at("w")[1].item<float>(), -2.0f);
}

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  TemporaryFolder folder;
  ASSERT_TRUE(WriteSafetensors(folder / "t", Sample()));
  const std::string whole = BytesOf(folder / "t");
  for (size_t length = 0; length < whole.size(); length += 3) {
    std::ofstream(folder / "cut", std::ios::binary | std::ios::trunc) << whole.substr(0, length);
    auto read = ReadSafetensors(folder / "cut");
    ASSERT_FALSE(read.ok()) << length;
    EXPECT_EQ(read.error().code, common::ErrorCode::kDataLoss);
  }
  std::ofstream(folder / "long", std::ios::binary) << whole << "x";
  EXPECT_FALSE(ReadSafetensors(folder / "long").ok());
}

TEST(SafetensorsTest, WrongHeadersAreRefused) {
  TemporaryFolder folder;
  const char* headers[] = {
      R"([])",
      R"({"w":1})",
      R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
      R"({"w":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}})",
      R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
      R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
      R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})",
      R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      R"({"w":{"dtype":"F32","shape":[2]}})",
  };
  for (const char* header : headers) {
    const uint64_t length = std::strlen(header);
    std::ofstream(folder / "t", std::ios::binary | std::ios::trunc)
        << std::string(reinterpret_cast<const char*>(&length), 8) << header << std::string(8, '\0');
    auto read = ReadSafetensors(folder / "t");
    EXPECT_FALSE(read.ok()) << header;
  }
}

TEST(SafetensorsTest, AbsentAndUnwritableFilesAreErrors) {
  TemporaryFolder folder;
  EXPECT_EQ(ReadSafetensors(folder / "none").error().code, common::ErrorCode::kNotFound);
  auto written = WriteSafetensors(folder / "no/such/folder", Sample());
  ASSERT_FALSE(written.ok());
  EXPECT_THAT(written.error().message, HasSubstr("No such file"));
}

}  // namespace
}  // namespace allometry::trainer
