#include "worker/trainer/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "tests/unit/trainer_data/data_fixture.h"

namespace allometry::trainer {
namespace {

using ::testing::HasSubstr;

class TokenizerTest : public DataFixture {
 protected:
  static std::vector<std::string> Sentences() {
    std::vector<std::string> lines;
    std::istringstream text(MadeUpText(300, 30, 1));
    for (std::string line; std::getline(text, line);)
      if (!line.empty()) lines.push_back(line);
    return lines;
  }
};

TEST_F(TokenizerTest, HasT5sLayout) {
  const auto model = TrainTokenizer(Sentences(), 400);
  ASSERT_TRUE(model.ok()) << model.error().message;
  const auto tokenizer = Tokenizer::FromBytes(*model, 400, "trained");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->pieces(), 300);
  EXPECT_EQ(tokenizer->vocabulary(), 400);
  EXPECT_EQ(tokenizer->Sentinel(0), 399);
  EXPECT_EQ(tokenizer->Sentinel(99), 300);
  EXPECT_FALSE(tokenizer->IsText(0));
  EXPECT_FALSE(tokenizer->IsText(1));
  EXPECT_TRUE(tokenizer->IsText(2));
  EXPECT_TRUE(tokenizer->IsText(299));
  EXPECT_FALSE(tokenizer->IsText(300));
  for (const std::string& sentence : {Sentences()[0], Sentences()[7]}) {
    const std::vector<int32_t> ids = tokenizer->Encode(sentence);
    EXPECT_LT(ids.size(), sentence.size() / 2) << "pieces are longer than letters";
    for (int32_t id : ids) EXPECT_TRUE(tokenizer->IsText(id)) << id;
    EXPECT_EQ(tokenizer->Decode(ids), sentence);
  }
  EXPECT_THAT(tokenizer->Encode("\xE2\x98\x83"), ::testing::Contains(2)) << "an unseen letter is unknown";
}

TEST_F(TokenizerTest, DecodingShowsSentinelsAndStopsAtTheEndMark) {
  const auto tokenizer = Tokenizer::FromBytes(*TrainTokenizer(Sentences(), 400), 432, "trained");
  ASSERT_TRUE(tokenizer.ok());
  std::vector<int32_t> ids = {tokenizer->Sentinel(0)};
  tokenizer->Encode("bako", &ids);
  ids.insert(ids.end(), {0, tokenizer->Sentinel(1), 1});
  tokenizer->Encode("bako", &ids);
  EXPECT_EQ(tokenizer->Decode(ids), "<extra_id_0> bako <extra_id_1>");
  EXPECT_NO_THROW(tokenizer->Decode(std::vector<int32_t>{431, 100'000, -5})) << "a model may answer with any row";
}

TEST_F(TokenizerTest, TheSameTextGivesTheSameBytes) {
  EXPECT_EQ(*TrainTokenizer(Sentences(), 400), *TrainTokenizer(Sentences(), 400));
  EXPECT_NE(*TrainTokenizer(Sentences(), 400), *TrainTokenizer(Sentences(), 401));
}

TEST_F(TokenizerTest, SpellsTheWordsThatItMust) {
  const std::string plain = *TrainTokenizer(Sentences(), 400);
  EXPECT_FALSE(Tokenizer::FromBytes(plain, 400, "trained")->CanSpell("not_Q"));
  const auto model = TrainTokenizer(Sentences(), 400, {"bako", "not_Q", "0.2"});
  ASSERT_TRUE(model.ok()) << model.error().message;
  for (const char* word : {"bako", "not_Q", "0.2"})
    EXPECT_TRUE(Tokenizer::FromBytes(*model, 400, "trained")->CanSpell(word)) << word;
  EXPECT_EQ(*TrainTokenizer(Sentences(), 400, {"bako"}), plain) << "what the text gives anyway changes nothing";
}

TEST_F(TokenizerTest, WhatDoesNotFitIsExplained) {
  const std::string model = *TrainTokenizer(Sentences(), 400);
  const auto narrow = Tokenizer::FromBytes(model, 399, "m.model");
  ASSERT_FALSE(narrow.ok());
  EXPECT_EQ(narrow.error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(narrow.error().message,
              HasSubstr("m.model: 300 pieces and 100 sentinels do not fit a vocabulary of 399"));
  for (const std::string& junk : {std::string("hello"), std::string(), model.substr(0, 50)}) {
    const auto bad = Tokenizer::FromBytes(junk, 400, "m.model");
    ASSERT_FALSE(bad.ok()) << junk.size();
    EXPECT_EQ(bad.error().code, common::ErrorCode::kDataLoss);
    EXPECT_THAT(bad.error().message, HasSubstr("not a SentencePiece model"));
  }
  EXPECT_THAT(Tokenizer::FromBytes(model, 3, "m").error().message, HasSubstr("must be from 164"));
}

// SentencePiece's own defaults: unk 0, bos 1, eos 2, no padding.
TEST_F(TokenizerTest, AnotherLayoutIsExplained) {
  Write("text", MadeUpText(300, 30, 1));
  const std::string prefix = (dir_ / "other").string();
  ASSERT_TRUE(sentencepiece::SentencePieceTrainer::Train("--input=" + (dir_ / "text").string() + " --model_prefix=" +
                                                         prefix + " --vocab_size=200 --minloglevel=2 --num_threads=1")
                  .ok());
  const auto other = Tokenizer::Load(prefix + ".model", 400);
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(other.error().message, HasSubstr("they must be 0, 1, 2"));
}

TEST_F(TokenizerTest, TooLittleTextIsExplained) {
  const auto model = TrainTokenizer({"a b c a b"}, 4'000);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().code, common::ErrorCode::kDataLoss);
  EXPECT_THAT(model.error().message, HasSubstr("lower tokenizer.vocabulary"));
  EXPECT_EQ(TrainTokenizer({}, 400).error().code, common::ErrorCode::kDataLoss);
}

TEST(SentenceSample, KeepsAllOfAShortStreamAndAUniformShareOfALongOne) {
  SentenceSample all(10, 1);
  for (const char* s : {"a", "b", "c"}) all.Add(s);
  EXPECT_THAT(all.sentences(), ::testing::ElementsAre("a", "b", "c"));
  // Each of 1,000 sentences is in a sample of 100 with probability 0.1.
  std::vector<int> hits(10, 0);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SentenceSample sample(100, seed);
    for (int i = 0; i < 1000; ++i) sample.Add(std::to_string(i));
    ASSERT_EQ(sample.sentences().size(), 100u);
    const std::set<std::string> distinct(sample.sentences().begin(), sample.sentences().end());
    ASSERT_EQ(distinct.size(), 100u);
    for (const std::string& s : distinct) ++hits[std::stoi(s) / 100];
  }
  for (int count : hits) EXPECT_NEAR(count, 1000, 150) << "five standard deviations of a binomial";
}

TEST(SentenceSample, CutsLongTextsBetweenWordsOrCharacters) {
  SentenceSample sample(100, 1);
  std::string words, letters;
  for (int i = 0; i < 1000; ++i) words += "word" + std::to_string(i) + (i < 999 ? " " : "");
  for (int i = 0; i < 1000; ++i) letters += "\xE2\x82\xAC";
  sample.Add(words);
  sample.Add(letters);
  std::string joined;
  for (const std::string& s : sample.sentences()) {
    EXPECT_LE(s.size(), 2'000u);
    if (s[0] == 'w')
      joined += (joined.empty() ? "" : " ") + s;
    else
      EXPECT_EQ(s.size() % 3, 0u);
  }
  EXPECT_EQ(joined, words);
}

}  // namespace
}  // namespace allometry::trainer
