#include "common/ids.h"

#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <vector>

namespace allometry::common {
namespace {

TEST(Ids, UuidsHaveVersionFourFormAndDiffer) {
  const std::regex form("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    std::string uuid = RandomUuid();
    EXPECT_TRUE(std::regex_match(uuid, form)) << uuid;
    seen.insert(uuid);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(Ids, EditDistance) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("same", "same"), 0);
}

TEST(Ids, NearestNameFindsTyposAndGivesUpOnStrangers) {
  const std::vector<std::string> names{"transformer", "lconv", "albert"};
  EXPECT_EQ(NearestName("transfomer", names), "transformer");
  EXPECT_EQ(NearestName("qqqqqqq", names), "");
}

}  // namespace
}  // namespace allometry::common
