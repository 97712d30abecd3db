#include "worker/trainer/data/sequences.h"

#include <gmock/gmock.h>

#include "tests/unit/trainer_data/token_fixture.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;

class SequencesTest : public TokenFixture {
 protected:
  static std::vector<Ids> All(const Sequences& sequences) {
    std::vector<Ids> all(static_cast<size_t>(sequences.size()));
    for (int64_t i = sequences.size() - 1; i >= 0; --i) sequences.Read(i, &all[static_cast<size_t>(i)]);
    return all;
  }
};

TEST_F(SequencesTest, JoinedDocumentsAreCutWhereverTheyEnd) {
  const TokenFile text = WriteTokens("text", {{11, 12, 13}, {21}, {}, {31, 32, 33, 34}});
  const Sequences sequences(text, Join::kEndMark, 5);
  EXPECT_THAT(All(sequences), ElementsAre(Ids{11, 12, 13, kEos, 21}, Ids{kEos, kEos, 31, 32, 33}));
  EXPECT_EQ(sequences.left_out(), 2) << "34 and its end mark";
}

TEST_F(SequencesTest, DocumentsByThemselvesGiveAsManyAsTheyHave) {
  const TokenFile text = WriteTokens("text", {{11, 12, 13}, {21}, {}, {31, 32, 33, 34, 35, 36, 37}, {41, 42}});
  const Sequences sequences(text, Join::kNone, 3);
  EXPECT_THAT(All(sequences), ElementsAre(Ids{11, 12, 13}, Ids{31, 32, 33}, Ids{34, 35, 36}, Ids{41, 42}));
  EXPECT_EQ(sequences.left_out(), 2) << "21, and 37 as a rest of one token";
}

// Many blocks, with documents that give nothing at their borders.
TEST_F(SequencesTest, EverySequenceOfManyDocumentsIsFound) {
  std::vector<Ids> documents = RandomDocuments(1000, 3);
  for (size_t d = 0; d < documents.size(); ++d)
    if (d / 64 % 3 == 1) documents[d].resize(1);  // whole blocks without a sequence
  std::vector<Ids> expected;
  int64_t left_out = 0;
  for (const Ids& document : documents) {
    for (size_t first = 0; first < document.size(); first += 16) {
      const size_t last = std::min(document.size(), first + 16);
      if (last - first < 2)
        left_out += static_cast<int64_t>(last - first);
      else
        expected.emplace_back(document.begin() + static_cast<std::ptrdiff_t>(first),
                              document.begin() + static_cast<std::ptrdiff_t>(last));
    }
  }
  const Sequences sequences(WriteTokens("text", documents), Join::kNone, 16);
  EXPECT_EQ(All(sequences), expected);
  EXPECT_EQ(sequences.left_out(), left_out);
}

TEST_F(SequencesTest, NoDocumentGivesNoSequence) {
  const TokenFile text = WriteTokens("text", {{}, {5}});
  EXPECT_EQ(Sequences(text, Join::kNone, 4).size(), 0);
  EXPECT_EQ(Sequences(text, Join::kEndMark, 4).size(), 0);
}

}  // namespace
}  // namespace allometry::trainer
