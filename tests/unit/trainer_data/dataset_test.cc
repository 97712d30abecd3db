#include "worker/trainer/data/dataset.h"

#include <gmock/gmock.h>

#include <numeric>

#include "tests/unit/trainer_data/data_fixture.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/data/token_ids.h"

namespace allometry::trainer {
namespace {

class DatasetTest : public DataFixture {};

// Bytes by id add up to those of the decoded text, but for the blank that a text's first word has not.
TEST_F(DatasetTest, TextBytesAreThoseOfTheDecodedText) {
  std::string text = MadeUpText(300, 30, 1);
  for (int i = 0; i < 60; ++i) text += "Öl für das Schloß, naïve cœur – žluťoučký kůň\n\n";
  const common::Status status = Prepare(TextRun(Write("text.txt", text), 400), execution_, dir_ / "data", nullptr);
  ASSERT_TRUE(status.ok()) << status.error().message;
  const Dataset data = *Dataset::Open(dir_ / "data");
  const std::vector<int32_t> bytes = data.TextBytes();
  ASSERT_EQ(static_cast<int64_t>(bytes.size()), data.tokenizer().vocabulary());
  EXPECT_EQ(bytes[kPad] + bytes[kEos], 0);
  for (int64_t i = 0; i < kSentinels; ++i) EXPECT_EQ(bytes[static_cast<size_t>(data.tokenizer().Sentinel(i))], 0);
  for (const char* words : {"baba kori", "Öl für das Schloß, naïve cœur – žluťoučký kůň", "ba", "?!"}) {
    const std::vector<int32_t> ids = data.tokenizer().Encode(words);
    size_t sum = 0;
    for (int32_t id : ids) sum += static_cast<size_t>(bytes[static_cast<size_t>(id)]);
    EXPECT_EQ(sum, 1 + data.tokenizer().Decode(ids).size()) << words;
  }
}

TEST_F(DatasetTest, APreparedTextIsOnePart) {
  ASSERT_TRUE(
      Prepare(TextRun(Write("text.txt", MadeUpText(200, 30, 1)), 300), execution_, dir_ / "data", nullptr).ok());
  const Dataset data = *Dataset::Open(dir_ / "data");
  ASSERT_EQ(data.parts().size(), 1u);
  EXPECT_EQ(data.parts()[0].train.tokens(), data.train().tokens());
  EXPECT_EQ(data.parts()[0].valid.tokens(), data.valid().tokens());
}

}  // namespace
}  // namespace allometry::trainer
