#include "worker/trainer/data/token_file.h"

#include <gmock/gmock.h>

#include "tests/unit/trainer_data/data_fixture.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class TokenFileTest : public DataFixture {
 protected:
  void WriteSample(int token_bytes) {
    TokenFileWriter writer = std::move(*TokenFileWriter::Create(dir_ / "x", token_bytes));
    for (const std::vector<int32_t>& document : documents_) ASSERT_TRUE(writer.Append(document).ok());
    ASSERT_TRUE(writer.Finish().ok());
    EXPECT_EQ(writer.tokens(), 6);
    EXPECT_EQ(writer.documents(), 3);
  }
  std::vector<std::vector<int32_t>> documents_ = {{5, 65'535, 1}, {}, {7, 8, 1}};
};

TEST_F(TokenFileTest, WhatWasWrittenComesBackInBothWidths) {
  for (int token_bytes : {2, 4}) {
    WriteSample(token_bytes);
    EXPECT_EQ(std::filesystem::file_size(dir_ / "x.tokens"), 6u * token_bytes);
    const TokenFile file = *TokenFile::Open(dir_ / "x", token_bytes);
    EXPECT_EQ(file.tokens(), 6);
    ASSERT_EQ(file.documents(), 3);
    EXPECT_THAT(file.Document(0), ElementsAre(5, 65'535, 1));
    EXPECT_THAT(file.Document(1), IsEmpty());
    EXPECT_THAT(file.Document(2), ElementsAre(7, 8, 1));
    std::vector<int32_t> across(3);
    file.Read(2, across);
    EXPECT_THAT(across, ElementsAre(1, 7, 8));
    EXPECT_THROW(file.Read(4, across), std::out_of_range);
    EXPECT_THROW(file.Document(3), std::out_of_range);
  }
}

TEST_F(TokenFileTest, AnEmptyFileIsAFile) {
  TokenFileWriter writer = std::move(*TokenFileWriter::Create(dir_ / "e", 2));
  ASSERT_TRUE(writer.Finish().ok());
  const auto file = TokenFile::Open(dir_ / "e", 2);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->tokens(), 0);
  EXPECT_EQ(file->documents(), 0);
}

TEST_F(TokenFileTest, CutFilesAreDataLoss) {
  WriteSample(2);
  std::filesystem::resize_file(dir_ / "x.tokens", 10);
  EXPECT_EQ(TokenFile::Open(dir_ / "x", 2).error().code, common::ErrorCode::kDataLoss);
  WriteSample(2);
  std::filesystem::resize_file(dir_ / "x.index", 17);
  EXPECT_EQ(TokenFile::Open(dir_ / "x", 2).error().code, common::ErrorCode::kDataLoss);
  std::filesystem::resize_file(dir_ / "x.index", 0);
  EXPECT_EQ(TokenFile::Open(dir_ / "x", 2).error().code, common::ErrorCode::kDataLoss);
  std::filesystem::remove(dir_ / "x.index");
  EXPECT_EQ(TokenFile::Open(dir_ / "x", 2).error().code, common::ErrorCode::kNotFound);
}

}  // namespace
}  // namespace allometry::trainer
