#include "worker/trainer/engine/object_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace allometry::trainer {
namespace {

using common::Json;
using testing::HasSubstr;

TEST(ObjectReaderTest, TakesMembersAndFallbacks) {
  const Json json{{"steps", 2e3}, {"rate", 0.5}, {"on", true}, {"name", "x"}};
  ObjectReader reader(json, "run");
  EXPECT_EQ(reader.Integer("steps", {}, 1, 10'000), 2000);
  EXPECT_EQ(reader.Integer("seed", 7, 0, 10), 7);
  EXPECT_EQ(reader.Number("rate", {}, 0, 1), 0.5);
  EXPECT_TRUE(reader.Boolean("on", false));
  EXPECT_EQ(reader.String("name", {}), "x");
  EXPECT_TRUE(reader.Finish().ok());
}

TEST(ObjectReaderTest, NamesThePathAndTheRange) {
  const Json json{{"steps", 0}};
  ObjectReader reader(json, "run");
  reader.Integer("steps", {}, 1, 10);
  EXPECT_THAT(reader.Finish().error().message, HasSubstr("run.steps must be an integer from 1 to 10, not 0"));
}

TEST(ObjectReaderTest, KeepsTheFirstMistake) {
  const Json json{{"a", "x"}, {"b", -1}};
  ObjectReader reader(json, "o");
  reader.Integer("a", {}, 0, 1);
  reader.Integer("b", {}, 0, 1);
  EXPECT_THAT(reader.Finish().error().message, HasSubstr("o.a"));
}

TEST(ObjectReaderTest, RefusesFractionsNanAndHugeIntegers) {
  for (const Json& bad : {Json(1.5), Json(1e300), Json("1"), Json(true), Json(Json::array())}) {
    const Json json{{"n", bad}};
    ObjectReader reader(json, "o");
    reader.Integer("n", {}, 0, 1'000'000);
    EXPECT_FALSE(reader.Finish().ok()) << bad;
  }
}

TEST(ObjectReaderTest, NamesTheNearestForAnUnknownMember) {
  const Json json{{"steps", 1}, {"lerning_rate", 0.1}};
  ObjectReader reader(json, "run.optimizer");
  reader.Integer("steps", {}, 1, 10);
  reader.Number("learning_rate", 0.1, 0, 1);
  EXPECT_THAT(reader.Finish().error().message,
              HasSubstr("run.optimizer.lerning_rate is unknown; did you mean 'learning_rate'?"));
}

TEST(ObjectReaderTest, ListsTheAllowedChoices) {
  const Json json{{"schedule", "constnt"}};
  ObjectReader reader(json, "o");
  reader.Choice("schedule", "constant", {"inverse_sqrt", "constant"});
  EXPECT_THAT(reader.Finish().error().message,
              HasSubstr("o.schedule is 'constnt': allowed are inverse_sqrt, constant (did you mean 'constant'?)"));
}

TEST(ObjectReaderTest, RefusesWhatIsNoObject) {
  const Json json = Json::array();
  ObjectReader reader(json, "run");
  reader.Integer("steps", {}, 0, 1);
  EXPECT_THAT(reader.Finish().error().message, HasSubstr("run must be an object"));
}

}  // namespace
}  // namespace allometry::trainer
