#include "common/json.h"

#include <gtest/gtest.h>

#include <limits>

namespace allometry::common {
namespace {

TEST(CanonicalJson, SortsKeysAtEveryDepthAndDropsWhiteSpace) {
  Json value = Json::parse(R"({ "b": {"z": 1, "a": [true, null, "x"]}, "a": -2 })");
  EXPECT_EQ(CanonicalJson(value), R"({"a":-2,"b":{"a":[true,null,"x"],"z":1}})");
}

TEST(CanonicalJson, DoublesAreShortestAndReadBackExactly) {
  EXPECT_EQ(CanonicalJson(Json(0.1)), "0.1");
  EXPECT_EQ(CanonicalJson(Json(1e300)), "1e+300");
  for (double v : {1.0 / 3, 2.0 / 3 * 1e-9, 123456.789, 5e-324})
    EXPECT_EQ(Json::parse(CanonicalJson(Json(v))).get<double>(), v);
}

TEST(CanonicalJson, KeepsSixtyFourBitIntegers) {
  EXPECT_EQ(CanonicalJson(Json(std::numeric_limits<int64_t>::max())), "9223372036854775807");
  EXPECT_EQ(CanonicalJson(Json(std::numeric_limits<uint64_t>::max())), "18446744073709551615");
}

TEST(CanonicalJson, EscapesStrings) { EXPECT_EQ(CanonicalJson(Json("a\"\n\\")), R"("a\"\n\\")"); }

TEST(CanonicalJson, RefusesNumbersWithoutAJsonForm) {
  EXPECT_THROW(CanonicalJson(Json(std::numeric_limits<double>::quiet_NaN())), std::invalid_argument);
  EXPECT_THROW(CanonicalJson(Json(std::numeric_limits<double>::infinity())), std::invalid_argument);
}

TEST(ParseJson, NamesTheSource) {
  auto result = ParseJson("{", "run.json");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(result.error().message.find("run.json"), std::string::npos);
}

}  // namespace
}  // namespace allometry::common
