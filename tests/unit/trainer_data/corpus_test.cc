#include "worker/trainer/data/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <unordered_set>
#include <vector>

#include "common/files.h"
#include "tests/unit/trainer_data/compressed.h"
#include "worker/trainer/data/random.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CorpusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "corpus_test_XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(dir_); }

  fs::path Write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }
  DocumentSink Collect() {
    return [this](std::string_view document) {
      documents_.emplace_back(document);
      return common::Ok();
    };
  }

  fs::path dir_;
  std::vector<std::string> documents_;
  CorpusCounts counts_;
};

TEST_F(CorpusTest, RulesOfWhatADocumentIs) {
  const fs::path path = Write("a.txt", "one two\n  three\n\n\nfour\n");
  ASSERT_TRUE(ReadTextFile(path, DocumentRule::kParagraph, Collect(), &counts_).ok());
  EXPECT_THAT(documents_, ElementsAre("one two three", "four"));
  EXPECT_EQ(counts_.documents, 2);
  EXPECT_EQ(counts_.words, 4);
  documents_.clear();
  ASSERT_TRUE(ReadTextFile(path, DocumentRule::kLine, Collect(), &counts_).ok());
  EXPECT_THAT(documents_, ElementsAre("one two", "three", "four"));
  documents_.clear();
  ASSERT_TRUE(ReadTextFile(path, DocumentRule::kFile, Collect(), &counts_).ok());
  EXPECT_THAT(documents_, ElementsAre("one two three four"));
}

TEST_F(CorpusTest, EveryCompressionGivesThePlainTextWhateverTheName) {
  const std::string text = "first document\n\nsecond document\n";
  for (const std::string& bytes : {text, Gzipped(text), Xzipped(text), Zstandard(text)}) {
    documents_.clear();
    const common::Status status = ReadTextFile(Write("blob", bytes), DocumentRule::kParagraph, Collect(), &counts_);
    ASSERT_TRUE(status.ok()) << status.error().message;
    EXPECT_THAT(documents_, ElementsAre("first document", "second document"));
  }
}

TEST_F(CorpusTest, SeveralMembersInOneFileAreAllRead) {
  for (const auto& compress : {Gzipped, Xzipped, Zstandard}) {
    documents_.clear();
    const fs::path path = Write("parts", compress("one\n") + compress("two\n") + compress("three\n"));
    const common::Status status = ReadTextFile(path, DocumentRule::kLine, Collect(), &counts_);
    ASSERT_TRUE(status.ok()) << status.error().message;
    EXPECT_THAT(documents_, ElementsAre("one", "two", "three"));
  }
}

TEST_F(CorpusTest, LongTextsComeThroughWhole) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i) + '\n';
  for (const std::string& bytes : {text, Gzipped(text), Xzipped(text), Zstandard(text)}) {
    documents_.clear();
    ASSERT_TRUE(ReadTextFile(Write("long", bytes), DocumentRule::kLine, Collect(), &counts_).ok());
    ASSERT_EQ(documents_.size(), 100'000u);
    for (int i = 0; i < 100'000; i += 997) ASSERT_EQ(documents_[i], std::to_string(i));
  }
}

TEST_F(CorpusTest, DamagedCompressionIsDataLossThatNamesTheFile) {
  std::string noise;
  KeyedRandom random(1, 2, 3);
  for (int i = 0; i < 20'000; ++i) noise += static_cast<char>('a' + random.Below(26));
  for (const auto& compress : {Gzipped, Xzipped, Zstandard}) {
    const std::string bytes = compress(noise + "\n");
    std::string flipped = bytes;
    flipped[bytes.size() / 2] ^= 0x55;
    std::string tail = bytes + "not compressed";
    for (const std::string& bad :
         {bytes.substr(0, bytes.size() / 2), bytes.substr(0, bytes.size() - 1), flipped, tail}) {
      const common::Status status = ReadTextFile(Write("bad.gz", bad), DocumentRule::kLine, Collect(), &counts_);
      // Zstandard frames carry no checksum here: a flipped bit may pass as other text.
      if (compress == Zstandard && bad == flipped) continue;
      ASSERT_FALSE(status.ok()) << bad.size();
      EXPECT_EQ(status.error().code, common::ErrorCode::kDataLoss);
      EXPECT_THAT(status.error().message, HasSubstr("bad.gz"));
    }
  }
  EXPECT_EQ(ReadTextFile(dir_ / "absent", DocumentRule::kLine, Collect(), &counts_).error().code,
            common::ErrorCode::kNotFound);
}

TEST_F(CorpusTest, CarriageReturnsAndByteOrderMarksAreNoText) {
  ASSERT_TRUE(
      ReadTextFile(Write("dos.txt", "\xEF\xBB\xBFone\r\n\r\ntwo\r\n"), DocumentRule::kParagraph, Collect(), &counts_)
          .ok());
  EXPECT_THAT(documents_, ElementsAre("one", "two"));
}

TEST_F(CorpusTest, TheSinksErrorStopsTheReading) {
  int calls = 0;
  const auto full = [&](std::string_view) { return ++calls, common::Status(common::ResourceExhausted("full")); };
  const auto status = ReadTextFile(Write("a.txt", "a\nb\nc\n"), DocumentRule::kLine, full, &counts_);
  EXPECT_EQ(status.error().message, "full");
  EXPECT_EQ(calls, 1);
}

TEST(ValidUtf8, KeepsWellFormedTextAndReplacesEachBadByte) {
  const auto valid = [](std::string_view s) {
    bool replaced = false;
    const std::string out = ValidUtf8(s, &replaced);
    return std::make_pair(out, replaced);
  };
  const std::string good = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  EXPECT_EQ(valid(good), std::make_pair(good, false));
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(valid("a\xE9z"), std::make_pair("a" + r + "z", true));
  EXPECT_EQ(valid("\xC0\xAF").first, r + r) << "overlong";
  EXPECT_EQ(valid("\xED\xA0\x80").first, r + r + r) << "surrogate";
  EXPECT_EQ(valid("\xE2\x82").first, r + r) << "cut off";
}

// Three texts: one about the database, two entries; the second entry under two headwords. Base-64 numbers by hand:
// 'A' = 0, 'O' = 14, 'BG' = 70.
TEST_F(CorpusTest, DictionaryEntriesComeOnceWithoutMarkup) {
  const std::string about = "about the db.\n",
                    first = "Feel \\F[=e]l\\, n.\n   1. A {touch}; as,\n      soft.\n      [1913 Webster]\n\n";
  const std::string second = "Feeler \\Feel\"er\\, n.\n   One\xE9 who feels.\n";
  const fs::path dict = Write("d.dict.dz", Gzipped(about + first + second));
  const auto number = [](size_t n) {
    static const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    return std::string{digits[n / 64], digits[n % 64]};
  };
  const auto line = [&](const std::string& word, size_t offset, size_t length) {
    return word + "\t" + number(offset) + "\t" + number(length) + "\n";
  };
  const size_t a = about.size(), b = a + first.size();
  const fs::path index = Write("d.index", line("00-database-info", 0, a) + line("feel", a, first.size()) +
                                              line("feeler", b, second.size()) + line("feelers", b, second.size()));
  const common::Status status = ReadDictionary(dict, index, Collect(), &counts_);
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_THAT(documents_, ElementsAre("Feel, n. 1. A touch; as, soft.", "Feeler, n. One\xEF\xBF\xBD who feels."));
  EXPECT_EQ(counts_.replaced_lines, 1);
  const auto bad = ReadDictionary(dict, Write("bad.index", line("x", b, 4000)), Collect(), &counts_);
  EXPECT_EQ(bad.error().code, common::ErrorCode::kDataLoss);
  EXPECT_THAT(bad.error().message, HasSubstr("bad.index:1:"));
}

TEST_F(CorpusTest, TheRealDictionary) {
  const fs::path dict = "/usr/share/dictd/gcide.dict.dz", index = "/usr/share/dictd/gcide.index";
  if (!fs::exists(dict)) GTEST_SKIP() << "Debian's package dict-gcide is not installed";
  std::unordered_set<std::string> distinct;
  const auto sink = [&](std::string_view document) { return distinct.emplace(document), common::Ok(); };
  const common::Status status = ReadDictionary(dict, index, sink, &counts_);
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_GT(counts_.words, 3'000'000);
  EXPECT_LT(counts_.words, 6'000'000);
  EXPECT_GT(distinct.size(), 100'000u);
  EXPECT_EQ(counts_.replaced_lines, 3);
  RecordProperty("words", std::to_string(counts_.words));
  printf("GCIDE: %ld documents, %ld words, %ld lines replaced\n", long(counts_.documents), long(counts_.words),
         long(counts_.replaced_lines));
}

}  // namespace
}  // namespace allometry::trainer
