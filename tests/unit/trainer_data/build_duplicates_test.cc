#include "worker/trainer/data/build_duplicates.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/unit/trainer_data/data_fixture.h"
#include "worker/trainer/data/build_survey.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;

class DuplicatesTest : public DataFixture {
 protected:
  // Document -> the first that it equals, as the finder says.
  std::map<int64_t, int64_t> Find(const std::vector<Fingerprint>& prints, int64_t memory_bytes) {
    DuplicateFinder finder(dir_, memory_bytes);
    for (const Fingerprint& print : prints) EXPECT_TRUE(finder.Add(print).ok());
    spilled_ = !fs::is_empty(dir_);
    std::map<int64_t, int64_t> found;
    const common::Status status = finder.Finish([&](int64_t document, int64_t first) {
      EXPECT_TRUE(found.try_emplace(document, first).first->second == first) << "one first a document";
    });
    EXPECT_TRUE(status.ok()) << status.error().message;
    EXPECT_TRUE(fs::is_empty(dir_)) << "bucket files go";
    return found;
  }
  // The same by a table in memory.
  static std::map<int64_t, int64_t> Expected(const std::vector<Fingerprint>& prints) {
    std::map<std::pair<uint64_t, uint64_t>, int64_t> firsts;
    std::map<int64_t, int64_t> expected;
    for (size_t i = 0; i < prints.size(); ++i) {
      const auto [first, is_new] = firsts.try_emplace({prints[i].high, prints[i].low}, static_cast<int64_t>(i));
      if (!is_new) expected[static_cast<int64_t>(i)] = first->second;
    }
    return expected;
  }
  // Documents of which about half repeat an earlier one.
  static std::vector<Fingerprint> Prints(int documents) {
    std::vector<Fingerprint> prints;
    for (int i = 0; i < documents; ++i)
      prints.push_back(FingerprintOf(
          std::to_string(KeyedRandom(5, 0, static_cast<uint64_t>(i)).Below(static_cast<uint32_t>(documents)))));
    return prints;
  }
  bool spilled_ = false;
};

TEST_F(DuplicatesTest, SpilledOnesAreThoseFoundInMemory) {
  const std::vector<Fingerprint> prints = Prints(20'000);
  const auto expected = Expected(prints);
  EXPECT_GT(expected.size(), 5'000u);
  EXPECT_EQ(Find(prints, DuplicateFinder::kDefaultMemoryBytes), expected);
  EXPECT_FALSE(spilled_);
  EXPECT_EQ(Find(prints, 256 * 1024), expected);
  EXPECT_TRUE(spilled_);
  EXPECT_EQ(Find(prints, 2'000), expected) << "buckets larger than the memory are divided";
  EXPECT_TRUE(spilled_);
}

TEST_F(DuplicatesTest, ManyEqualDocumentsNeedNoMemory) {
  std::vector<Fingerprint> prints(30'000, FingerprintOf("the same"));
  prints.push_back(FingerprintOf("another"));
  const auto found = Find(prints, 2'000);
  EXPECT_EQ(found.size(), 29'999u);
  for (const auto& [document, first] : found) ASSERT_EQ(first, 0) << document;
}

TEST_F(DuplicatesTest, PrintsThatDifferInTheirLastByteOnlyAreDifferent) {
  std::vector<Fingerprint> prints;
  for (uint64_t i = 0; i < 200; ++i) prints.push_back({7, i << 56});
  EXPECT_TRUE(Find(prints, 1'000).empty());
  for (uint64_t i = 0; i < 200; ++i) prints.push_back({i, 0});
  EXPECT_EQ(Find(prints, 1'000), Expected(prints));
}

TEST_F(DuplicatesTest, AFolderThatIsNotThereIsAnError) {
  DuplicateFinder finder(dir_ / "absent", 1'000);
  common::Status status;
  for (const Fingerprint& print : Prints(100))
    if (status) status = finder.Add(print);
  EXPECT_FALSE(status.ok());
}

TEST(DocumentSides, KeepTwoBitsADocument) {
  DocumentSides sides;
  const auto side = [](int64_t i) { return static_cast<Side>(Mix64(static_cast<uint64_t>(i)) % 3); };
  for (int64_t i = 0; i < 1001; ++i) sides.Add(side(i));
  EXPECT_EQ(sides.bytes().size(), 251u);
  sides.Set(500, Side::kDuplicate);
  const DocumentSides read = DocumentSides::FromBytes(sides.bytes(), sides.size());
  for (int64_t i = 0; i < 1001; ++i) ASSERT_EQ(read.at(i), i == 500 ? Side::kDuplicate : side(i)) << i;
}

}  // namespace
}  // namespace allometry::trainer
