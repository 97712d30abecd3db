#include "records/table_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

namespace allometry::records {
namespace {

using ::testing::HasSubstr;

Record Full() {
  Record r;
  r.sweep = "tay";
  r.cell = "glu-base-s1";
  r.architecture = "glu";
  r.size = "base";
  r.shape = "nl8";
  r.seed = std::numeric_limits<uint64_t>::max();
  r.state = CellState::kDone;
  r.finetune_state = CellState::kFailed;
  r.finetune_reason = "said \"no\", twice";
  r.device = "cpu, eight cores";
  r.metrics = {{"validation_loss", 0.1 + 0.2}, {"odd", std::numeric_limits<double>::infinity()}};
  r.scores = {{"gloss", {0.75, 0.01, 0.5, 1234, true}}};
  r.tags = {{"group", "a"}};
  r.excluded = "because";
  return r;
}

TEST(JsonLines, ComeBackAsTheyWent) {
  Table table{Full(), Record{}};
  table[1].cell = "plain";
  std::stringstream text;
  WriteJsonLines(table, text);
  const Table back = ReadJsonLines(text, "t").value();
  ASSERT_EQ(back.size(), 2u);
  for (size_t i = 0; i < back.size(); ++i) EXPECT_EQ(RecordToJson(back[i]), RecordToJson(table[i]));
  EXPECT_EQ(back[0].seed, table[0].seed);
  EXPECT_EQ(back[0].metrics, table[0].metrics) << "to the last bit";
  EXPECT_FALSE(back[1].finetune_state);
  EXPECT_FALSE(back[1].excluded);
}

TEST(JsonLines, ABrokenLineIsNamedByItsNumber) {
  std::stringstream broken("{\"cell\":\"a\"}\n\n{\"cell\":");
  EXPECT_THAT(ReadJsonLines(broken, "cells.jsonl").error().message, HasSubstr("cells.jsonl:3"));
  std::stringstream unlike("[1]\n");
  EXPECT_THAT(ReadJsonLines(unlike, "x").error().message, HasSubstr("x:1"));
  std::stringstream state("{\"state\":\"dead\"}\n");
  EXPECT_THAT(ReadJsonLines(state, "x").error().message, HasSubstr("unknown state 'dead'"));
  std::stringstream metric("{\"metrics\":{\"a\":\"many\"}}\n");
  EXPECT_THAT(ReadJsonLines(metric, "x").error().message, HasSubstr("'many' is not a number"));
}

TEST(Csv, HasEveryMetricTaskAndTagOfAnyRecord) {
  Table table{Full(), Record{}};
  table[1].cell = "plain";
  table[1].metrics = {{"steps", 5}};
  std::stringstream text;
  WriteCsv(table, text);
  std::string header, first, second;
  std::getline(text, header);
  std::getline(text, first);
  std::getline(text, second);
  EXPECT_EQ(
      header,
      "sweep,cell,architecture,size,shape,seed,state,reason,finetune_state,finetune_reason,device,excluded,odd,steps,"
      "validation_loss,gloss.value,gloss.standard_error,gloss.majority,gloss.examples,gloss.at_chance,tag.group");
  EXPECT_EQ(
      first,
      "tay,glu-base-s1,glu,base,nl8,18446744073709551615,done,,failed,\"said \"\"no\"\", twice\",\"cpu, eight cores\","
      "because,inf,,0.30000000000000004,0.75,0.01,0.5,1234,true,a");
  EXPECT_EQ(second, ",plain,,,,0,unfinished,,,,,,,5,,,,,,,");
}

}  // namespace
}  // namespace allometry::records
