#include "coordinator/grid/sweep_yaml.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "coordinator/grid/grid.h"
#include "coordinator/grid/sweep_file.h"

namespace allometry::coordinator {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;

void ExpectReadsBack(const v1::SweepSpec& spec) {
  const std::string yaml = WriteSweep(spec);
  const auto read = ParseSweep(yaml, "written.yaml");
  ASSERT_TRUE(read) << read.error().message << "\n" << yaml;
  EXPECT_TRUE(MessageDifferencer::Equals(*read, spec)) << yaml;
}

TEST(SweepYaml, EveryExampleReadsBack) {
  int examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ALLOMETRY_SOURCE_DIR "/examples")) {
    if (entry.path().extension() != ".yaml") continue;
    ++examples;
    const auto spec = ReadSweepFile(entry.path());
    ASSERT_TRUE(spec) << spec.error().message;
    ExpectReadsBack(*spec);
  }
  EXPECT_GT(examples, 5);
}

TEST(SweepYaml, TextsStayTexts) {
  v1::SweepSpec spec = ReadSweepFile(ALLOMETRY_SOURCE_DIR "/examples/quickstart.yaml").value();
  spec.set_description("yes: \"1e3\" # not a comment\nsecond line");
  for (const char* value : {"true", "12", "1e3", "null", "", "~", "a: b", " padded ", "größer"})
    (*spec.mutable_tags())["tag" + std::to_string(spec.tags().size())] = value;
  ExpectReadsBack(spec);
}

TEST(SweepYaml, ReadsWhatTheDatabaseKeeps) {
  const v1::SweepSpec spec = ReadSweepFile(ALLOMETRY_SOURCE_DIR "/examples/zoo.yaml").value();
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(spec, &json, options).ok());
  EXPECT_TRUE(MessageDifferencer::Equals(SweepFromJson(json).value(), spec));
  EXPECT_EQ(SweepFromJson("{").error().code, common::ErrorCode::kDataLoss);
}

v1::SweepSpec SmallGrid() {
  v1::SweepSpec spec = ReadSweepFile(ALLOMETRY_SOURCE_DIR "/examples/quickstart.yaml").value();
  spec.set_trainer("own");  // no files needed
  spec.clear_finetuning();
  spec.clear_data();
  spec.mutable_data()->add_text("a.txt");
  spec.clear_tokenizer();
  return spec;
}

TEST(OnlySomeCells, AreRunOfTheGrid) {
  v1::SweepSpec spec = SmallGrid();
  v1::ManifestFile file;
  file.set_role("corpus");
  file.set_name("a.txt");
  file.set_sha256(std::string(64, 'a'));
  const auto all = Expand(spec, {file});
  ASSERT_TRUE(all) << all.error().message;
  spec.add_only(all->back().name);
  spec.add_only(all->front().name);
  const auto some = Expand(spec, {file}).value();
  ASSERT_EQ(some.size(), 2u);
  EXPECT_EQ(some[0].identity, all->front().identity);
  EXPECT_EQ(some[1].identity, all->back().identity);
  spec.add_only("glu-none-s0");
  EXPECT_THAT(Expand(spec, {file}).error().message, HasSubstr("no pretraining cell of the grid"));
}

}  // namespace
}  // namespace allometry::coordinator
