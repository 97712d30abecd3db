#include <gmock/gmock.h>

#include <cstdlib>

#include "tests/unit/trainer_data/compressed.h"
#include "tests/unit/trainer_data/data_fixture.h"
#include "worker/trainer/data/corpus.h"
#include "worker/trainer/data/decompress.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kArticles[] =
    "<doc id=\"1\" url=\"http://x/1\" title=\"Oak\">\nOak\n\nAn oak is\ta tree.\nIt  grows.\n</doc>\n"
    "<doc id=\"2\" url=\"http://x/2\" title=\"Ash\">\nAsh\n\nAnother tree.\n\n</doc>\n";

class CorpusFormatsTest : public DataFixture {
 protected:
  common::Status Read(const fs::path& path, TextLayout layout) {
    documents_.clear();
    counts_ = {};
    const auto sink = [&](std::string_view document) { return documents_.emplace_back(document), common::Ok(); };
    return ReadCorpusFile(path, layout, sink, &counts_);
  }
  // The error of reading `text`, whose file is called `name`.
  std::string Wrong(const std::string& name, const std::string& text, TextLayout layout) {
    const common::Status status = Read(Write(name, text), layout);
    if (status) return "no error";
    EXPECT_EQ(status.error().code, common::ErrorCode::kDataLoss);
    return status.error().message;
  }
  std::string In(const std::string& name, const std::string& message) { return (dir_ / name).string() + message; }

  std::vector<std::string> documents_;
  CorpusCounts counts_;
};

constexpr char kRows[] =
    "{\"id\": 1, \"text\": \"one\\n two\"}\n\n{\"text\": \"caf\\u00e9\", \"x\": [1]}\n{\"text\": \" \"}\n";

TEST_F(CorpusFormatsTest, JsonLinesGiveTheNamedField) {
  ASSERT_TRUE(Read(Write("a.jsonl", kRows), {.format = CorpusFormat::kJsonLines}).ok());
  EXPECT_THAT(documents_, ElementsAre("one two", "caf\xC3\xA9"));
  EXPECT_EQ(counts_.documents, 2);
  EXPECT_EQ(counts_.words, 3);
  EXPECT_EQ(counts_.empty_rows, 1) << "a text without words is no document, and counted";
  ASSERT_TRUE(
      Read(Write("b.jsonl", "{\"body\": \"b\"}\n"), {.format = CorpusFormat::kJsonLines, .field = "body"}).ok());
  EXPECT_THAT(documents_, ElementsAre("b"));
}

TEST_F(CorpusFormatsTest, BadRowsOfJsonLinesAreNamedByFileAndLine) {
  const TextLayout layout{.format = CorpusFormat::kJsonLines};
  EXPECT_EQ(Wrong("a.jsonl", "{\"text\": \"x\"}\n{\"title\": \"y\"}\n", layout),
            In("a.jsonl", " line 2: the row has no field 'text'"));
  EXPECT_EQ(Wrong("a.jsonl", "{\"text\": 7}\n", layout),
            In("a.jsonl", " line 1: the field 'text' is no text but number 7"));
  EXPECT_EQ(Wrong("a.jsonl", "\n[1]\n", layout), In("a.jsonl", " line 2: not a JSON object but array"));
  EXPECT_EQ(Wrong("a.jsonl", "{\"text\": \"x\"\n", layout), In("a.jsonl", " line 1: not valid JSON"));
}

TEST_F(CorpusFormatsTest, BadRowsAreLeftOutAndCountedWhereThatWasAskedFor) {
  const TextLayout layout{.format = CorpusFormat::kJsonLines, .skip_bad_rows = true};
  ASSERT_TRUE(Read(Write("a.jsonl", "{\"text\": \"x\"}\n{\"tex\": 1}\nnot\n{\"text\": \"y\"}\n"), layout).ok());
  EXPECT_THAT(documents_, ElementsAre("x", "y"));
  EXPECT_EQ(counts_.bad_rows, 2);
  EXPECT_EQ(counts_.first_bad, In("a.jsonl", " line 2: the row has no field 'text'"));
}

TEST_F(CorpusFormatsTest, AnArticleOfWikipediaIsADocumentThatBeginsWithItsTitle) {
  ASSERT_TRUE(Read(Write("a", kArticles), {.format = CorpusFormat::kWikipedia}).ok());
  EXPECT_THAT(documents_, ElementsAre("Oak An oak is a tree. It grows.", "Ash Another tree."));
  EXPECT_EQ(counts_.bad_rows, 0);
}

TEST_F(CorpusFormatsTest, AnArticleWithoutItsEndIsAnErrorOrSkipped) {
  TextLayout layout{.format = CorpusFormat::kWikipedia};
  const std::string whole = kArticles, second = "<doc id=\"9\" url=\"\" title=\"Elm\">\nElm\n";
  EXPECT_EQ(Wrong("a", whole + second, layout), In("a", " line 13: the article that begins here has no end (</doc>)"));
  EXPECT_EQ(Wrong("a", second + whole, layout), In("a", " line 1: the article that begins here has no end (</doc>)"));
  EXPECT_THAT(Wrong("a", "stray\n" + whole, layout), HasSubstr("a line 1: text outside of an article"));
  layout.skip_bad_rows = true;
  ASSERT_TRUE(Read(Write("a", second + whole + second), layout).ok());
  EXPECT_THAT(documents_, ElementsAre("Oak An oak is a tree. It grows.", "Ash Another tree."));
  EXPECT_EQ(counts_.bad_rows, 2);
}

TEST_F(CorpusFormatsTest, ColumnsOfTsvGoByNameOrByNumber) {
  const fs::path path = Write("a.tsv", "id\ttext\tlabel\n1\t\"a\" quoted\tx\n2\tb\ty\n3\t\tz\n");
  ASSERT_TRUE(Read(path, {.format = CorpusFormat::kTsv}).ok());
  EXPECT_THAT(documents_, ElementsAre("\"a\" quoted", "b"));
  EXPECT_EQ(counts_.empty_rows, 1);
  ASSERT_TRUE(Read(path, {.format = CorpusFormat::kTsv, .column = "label"}).ok());
  EXPECT_THAT(documents_, ElementsAre("x", "y", "z"));
  ASSERT_TRUE(Read(path, {.format = CorpusFormat::kTsv, .column = "1"}).ok());
  EXPECT_THAT(documents_, ElementsAre("id", "1", "2", "3")) << "a number says that there is no header";
}

TEST_F(CorpusFormatsTest, BadRowsOfTsvAreNamedByFileAndLine) {
  TextLayout layout{.format = CorpusFormat::kTsv};
  EXPECT_EQ(Wrong("a.tsv", "id\ttext\n1\ta\n2\n", layout),
            In("a.tsv", " line 3: the row has 1 column, and the header has 2"));
  EXPECT_EQ(Wrong("a.tsv", "id\tbody\n1\ta\n", layout),
            In("a.tsv", " line 1: the header has no column 'text'; it is: id\tbody"));
  layout.skip_bad_rows = true;
  ASSERT_TRUE(Read(Write("a.tsv", "id\ttext\n1\ta\n2\n3\tb\tc\n4\td\n"), layout).ok());
  EXPECT_THAT(documents_, ElementsAre("a", "d"));
  EXPECT_EQ(counts_.bad_rows, 2);
  layout.skip_bad_rows = false;
  layout.column = "3";
  EXPECT_EQ(Wrong("a.tsv", "a\tb\n", layout), In("a.tsv", " line 1: the row has 2 columns, and column 3 is asked for"));
}

TEST_F(CorpusFormatsTest, EveryFormatComesCompressedToo) {
  for (const auto& pack : {Gzipped, Xzipped, Zstandard}) {
    ASSERT_TRUE(Read(Write("a", pack(kRows)), {.format = CorpusFormat::kJsonLines}).ok());
    EXPECT_THAT(documents_, ElementsAre("one two", "caf\xC3\xA9"));
    ASSERT_TRUE(Read(Write("a", pack(kArticles)), {.format = CorpusFormat::kWikipedia}).ok());
    EXPECT_EQ(documents_.size(), 2u);
    ASSERT_TRUE(Read(Write("a", pack("text\nx\n")), {.format = CorpusFormat::kTsv}).ok());
    EXPECT_THAT(documents_, ElementsAre("x"));
  }
}

TEST_F(CorpusFormatsTest, ACutOffFileIsAnErrorThatNamesItOrReadAsFarAsItGoes) {
  // Incompressible enough that half of the file holds many whole rows.
  std::string rows;
  for (int i = 0; i < 20'000; ++i)
    rows += "{\"text\": \"row " + std::to_string(Mix64(static_cast<uint64_t>(i))) + "\"}\n";
  for (const auto& pack : {Gzipped, Xzipped, Zstandard}) {
    const std::string whole = pack(rows);
    const fs::path path = Write("cut.gz", whole.substr(0, whole.size() / 2));
    const common::Status status = Read(path, {.format = CorpusFormat::kJsonLines});
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().message,
              "'" + path.string() + "' cannot be decompressed: the file is cut off; fetch or pack it again");
    ASSERT_TRUE(Read(path, {.format = CorpusFormat::kJsonLines, .skip_bad_rows = true}).ok());
    EXPECT_EQ(counts_.damaged_files, 1);
    EXPECT_EQ(counts_.first_bad, status.error().message);
    EXPECT_EQ(counts_.bad_rows, 0) << "the row at the cut is a part of the damage";
    EXPECT_GT(documents_.size(), 1000u);
    EXPECT_LT(documents_.size(), 20'000u);
    EXPECT_EQ(documents_[0], "row " + std::to_string(Mix64(0)));
  }
}

TEST_F(CorpusFormatsTest, APartOfADocumentAtTheCutIsNone) {
  std::string text = "whole document\n\n";
  for (int i = 0; i < 60'000; ++i) text += "part " + std::to_string(Mix64(static_cast<uint64_t>(i))) + "\n";
  const std::string packed = Gzipped(text);
  const fs::path path = Write("cut.txt", packed.substr(0, packed.size() / 2));
  ASSERT_TRUE(Read(path, {.skip_bad_rows = true}).ok());
  EXPECT_THAT(documents_, ElementsAre("whole document"));
  EXPECT_EQ(counts_.damaged_files, 1);
}

TEST_F(CorpusFormatsTest, ALineWithoutEndIsReadInPieces) {
  const std::string half(kMaxLineBytes, 'x');
  const fs::path path = Write("long", "{\"text\": \"" + half + "\"}\n{\"text\": \"short\"}\n");
  EXPECT_EQ(Read(path, {.format = CorpusFormat::kJsonLines}).error().message,
            path.string() + " line 1: the row is longer than 64 MiB");
  ASSERT_TRUE(Read(path, {.format = CorpusFormat::kJsonLines, .skip_bad_rows = true}).ok());
  EXPECT_THAT(documents_, ElementsAre("short"));
  EXPECT_EQ(counts_.bad_rows, 1);
}

TEST_F(CorpusFormatsTest, FormatsAreToldByContent) {
  const auto guess = [&](const std::string& name, const std::string& text) { return *GuessFormat(Write(name, text)); };
  EXPECT_EQ(guess("a", kArticles), CorpusFormat::kWikipedia);
  EXPECT_EQ(guess("a.xz", Xzipped(std::string("\n") + kArticles)), CorpusFormat::kWikipedia);
  EXPECT_EQ(guess("a", kRows), CorpusFormat::kJsonLines);
  EXPECT_EQ(guess("a", "{braces} are text too\n"), CorpusFormat::kText);
  EXPECT_EQ(guess("a.tsv.gz", Gzipped("a\tb\n")), CorpusFormat::kTsv);
  EXPECT_EQ(guess("a.txt", "a\tb\n"), CorpusFormat::kText);
  EXPECT_EQ(guess("empty", ""), CorpusFormat::kText);
  EXPECT_EQ(GuessFormat(dir_ / "absent").error().code, common::ErrorCode::kNotFound);
}

// Real extracts of Wikipedia, which are not part of the project (benchmark_data_test.cc says where they lie).
TEST_F(CorpusFormatsTest, TheRealWikipedia) {
  const char* folder = std::getenv("ALLOMETRY_SHARED_DATA");
  const fs::path path = (folder ? fs::path(folder) : fs::path(ALLOMETRY_SOURCE_DIR) / ".." / "shared" / "data") /
                        "text/wikipedia-en-2015/valid.txt.xz";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there; ALLOMETRY_SHARED_DATA names the folder";
  ASSERT_EQ(*GuessFormat(path), CorpusFormat::kWikipedia);
  const common::Status status = Read(path, {.format = CorpusFormat::kWikipedia});
  ASSERT_TRUE(status.ok()) << status.error().message;
  TextReader lines = std::move(*TextReader::Open(path));
  std::vector<std::string> titles;
  std::string line;
  while (*lines.NextLine(&line))
    if (line.starts_with("<doc id=")) {
      *lines.NextLine(&line);
      titles.push_back(line);
    }
  ASSERT_EQ(documents_.size(), titles.size());
  for (size_t i = 0; i < titles.size(); ++i) EXPECT_TRUE(documents_[i].starts_with(titles[i])) << titles[i];
  EXPECT_GT(counts_.words, 900'000);
}

}  // namespace
}  // namespace allometry::trainer
