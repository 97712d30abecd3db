#include "records/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace allometry::records {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

Record Named(const std::string& architecture, const std::string& size, uint64_t seed) {
  Record r;
  r.sweep = "tay";
  r.cell = architecture + "-" + size + "-s" + std::to_string(seed);
  r.architecture = architecture;
  r.size = size;
  r.seed = seed;
  return r;
}

Table Three() { return {Named("glu", "base", 1), Named("glu", "tiny", 2), Named("albert", "base", 1)}; }

size_t Kept(const std::string& filter) { return Select(Three(), Filter::Parse(filter).value()).size(); }

TEST(Filter, KeysMustAllHoldAndOneOfTheValuesOfAKey) {
  EXPECT_EQ(Kept(""), 3u);
  EXPECT_EQ(Kept("architecture=glu"), 2u);
  EXPECT_EQ(Kept("architecture=glu,size=base"), 1u);
  EXPECT_EQ(Kept("size=base,size=tiny"), 3u);
  EXPECT_EQ(Kept("seed=1,state=unfinished,sweep=tay"), 2u);
  EXPECT_EQ(Kept("cell=albert-base-s1"), 1u);
  EXPECT_EQ(Kept("seed=3"), 0u);
}

TEST(Filter, TagsThatARecordLacksDoNotHold) {
  Table table = Three();
  table[0].tags["group"] = "";
  table[1].tags["group"] = "x=y";
  EXPECT_EQ(Select(table, Filter::Parse("tag.group=x=y").value()), View{&table[1]});
  EXPECT_EQ(Select(table, Filter::Parse("tag.group=").value()), View{&table[0]});
}

TEST(Filter, MistakesAreNamed) {
  EXPECT_THAT(Filter::Parse("glu").error().message, HasSubstr("key=value"));
  EXPECT_THAT(Filter::Parse("architectur=glu").error().message, HasSubstr("did you mean 'architecture'"));
  EXPECT_FALSE(Filter::Parse("tag.=x").ok());
}

TEST(FindNamed, ByCellOrSweepAndCell) {
  const Table table = Three();
  const auto found = FindNamed(Select(table, {}), {"glu-base-s1", "tay/albert-base-s1"}).value();
  EXPECT_EQ(found, (std::unordered_set<const Record*>{&table[0], &table[2]}));
}

TEST(FindNamed, AnUnknownNameIsAnErrorWithTheNearest) {
  const Table table = Three();
  const auto found = FindNamed(Select(table, {}), {"glu-base-s1", "glu-base-s2"});
  EXPECT_EQ(found.error().code, common::ErrorCode::kNotFound);
  EXPECT_THAT(found.error().message, HasSubstr("did you mean"));
}

}  // namespace
}  // namespace allometry::records
