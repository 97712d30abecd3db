#include "records/flat_numbers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <random>

#include "common/json.h"

namespace allometry::records {
namespace {

using common::Json;
using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::SizeIs;

TEST(FlatNumbers, OfAnObject) {
  EXPECT_THAT(*ReadFlatNumbers(R"( {"loss": 2.5, "steps":1200,"x y":-1e-3} )"),
              ElementsAre(Pair("loss", 2.5), Pair("steps", 1200), Pair("x y", -0.001)));
  EXPECT_THAT(*ReadFlatNumbers("{}"), SizeIs(0));
}

TEST(FlatNumbers, WhatIsNotFlatOrNotJsonIsLeftToAParser) {
  for (const char* text : {"",
                           "[]",
                           "{",
                           "{\"a\"",
                           "{\"a\":}",
                           "{\"a\":1",
                           "{\"a\":1,}",
                           "{\"a\":1}x",
                           "{a:1}",
                           R"({"a":"nan"})",
                           R"({"a":null})",
                           R"({"a":{"b":1}})",
                           R"({"a\n":1})",
                           "{\"\xC3\xA4\":1}",
                           R"({"a":inf})",
                           R"({"a":.5})",
                           R"({"a":5.})",
                           R"({"a":-})",
                           R"({"a":+1})",
                           R"({"a":1e999})",
                           R"({"a":0x10})"})
    EXPECT_FALSE(ReadFlatNumbers(text)) << text;
}

// Doubles of every kind, whole numbers among them, to the last bit.
TEST(FlatNumbers, AreThoseOfTheParser) {
  std::mt19937_64 generator(3);
  for (int round = 0; round < 20'000; ++round) {
    const double value = std::bit_cast<double>(generator());
    if (!std::isfinite(value)) continue;
    for (const Json& json : {Json(value), Json(static_cast<int64_t>(generator())), Json(generator())}) {
      const std::string text = Json{{"x", json}}.dump();
      const auto members = ReadFlatNumbers(text);
      ASSERT_TRUE(members) << text;
      ASSERT_EQ(members->front().second, Json::parse(text)["x"].get<double>()) << text;
    }
  }
}

}  // namespace
}  // namespace allometry::records
