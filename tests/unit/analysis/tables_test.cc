#include "analysis/tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using common::Json;
using common::OutputFormat;
using ::testing::HasSubstr;
using ::testing::StartsWith;

SlopesResult StudySlopes() {
  records::Table table = Grid("transformer", {}) + Grid("glu", {.slope = 0.4}) + Grid("albert", {.sizes = 1});
  table.push_back(Cell("glu", "z1", 9, 1e7, 3));
  table.back().state = records::CellState::kDiverged;
  return Slopes(table, {.baseline = "transformer"}).value();
}

ParetoResult StudyPareto() { return Pareto(Grid("transformer", {}) + Grid("glu", {.slope = 0.4}), {}).value(); }

TEST(Tables, TheSlopeTableHasARowAnArchitectureAndSaysWhatIsMissing) {
  const std::string text = Render(StudySlopes(), OutputFormat::kTable);
  EXPECT_THAT(text, StartsWith("architecture"));
  EXPECT_THAT(text, HasSubstr("transformer   0.500±0.0"));
  EXPECT_THAT(text, HasSubstr("left out: study/glu-z1-s9: diverged"));
  EXPECT_THAT(text, HasSubstr("α(F,U) of albert: a slope needs two sizes"));
  EXPECT_THAT(text, HasSubstr("semilog"));
}

TEST(Tables, TheSlopeTableFitsATerminal) {
  std::istringstream lines(common::Render(ToTable(StudySlopes()), OutputFormat::kTable));
  std::string line;
  for (int row = 0; row < 4; ++row) {
    std::getline(lines, line);
    EXPECT_LE(std::ranges::count_if(line, [](unsigned char c) { return (c & 0xC0) != 0x80; }), 80) << line;
  }
}

TEST(Tables, CsvHasARowASlopeWithEveryNumberAndItsConvention) {
  std::istringstream lines(Render(StudySlopes(), OutputFormat::kCsv));
  std::string header, first;
  std::getline(lines, header);
  std::getline(lines, first);
  EXPECT_EQ(
      header,
      "architecture,x,y,alpha,seed_low,seed_high,seed_degrees_of_freedom,line_low,line_high,line_degrees_of_freedom,"
      "sizes,cells,flags,refused,transform,flops,parameters");
  EXPECT_THAT(first, StartsWith("transformer,flops,upstream,0.5"));
  int rows = 1;
  while (std::getline(lines, first)) ++rows;
  EXPECT_EQ(rows, 3 * 7);
}

TEST(Tables, JsonOfSlopesCarriesWhatTheResultHolds) {
  const SlopesResult result = StudySlopes();
  const Json json = Json::parse(Render(result, OutputFormat::kJson));
  EXPECT_EQ(json["transform"], "semilog");
  EXPECT_EQ(json["flops"], "forward");
  EXPECT_EQ(json["tasks"], (std::vector<std::string>{"gloss", "sense"}));
  const Json& slope = json["architectures"][0]["slopes"][0];
  EXPECT_DOUBLE_EQ(slope["alpha"].get<double>(), *result.architectures[0].slopes[0].estimate.alpha);
  EXPECT_DOUBLE_EQ(slope["seed_interval"]["low"].get<double>(),
                   result.architectures[0].slopes[0].estimate.seed_interval->low);
  EXPECT_EQ(slope["points"].size(), 3u);
  const Json& refused = json["architectures"][2]["slopes"][0];
  EXPECT_TRUE(refused["alpha"].is_null());
  EXPECT_THAT(refused["refused"].get<std::string>(), HasSubstr("two sizes"));
  EXPECT_EQ(json["left_out"][0]["cell"], "study/glu-z1-s9");
  EXPECT_EQ(json["comparisons"].size(), 2u * 7);
  EXPECT_EQ(json["comparisons"][0]["verdict"], result.comparisons[0].verdict);
}

TEST(Tables, ParetoInAllFormats) {
  const ParetoResult result = StudyPareto();
  EXPECT_THAT(Render(result, OutputFormat::kTable), HasSubstr("transformer-z2"));
  EXPECT_THAT(Render(result, OutputFormat::kMarkdown), HasSubstr("| transformer-z2 |"));
  EXPECT_THAT(Render(result, OutputFormat::kCsv), HasSubstr("cell,architecture,size,cost,quality"));
  const Json json = Json::parse(Render(result, OutputFormat::kJson));
  EXPECT_EQ(json["points"].size(), 6u);
  EXPECT_EQ(json["cost"], "flops");
  EXPECT_DOUBLE_EQ(json["points"][0]["probability"].get<double>(), *result.points[0].probability);
  EXPECT_EQ(json["regions"].size(), 3u);
}

TEST(Tables, SeveralCostsHaveAColumnEach) {
  records::Table table = Grid("transformer", {});
  for (records::Record& r : table) r.metrics["peak_memory_bytes"] = 1e9;
  const ParetoResult result = Pareto(table, {.costs = {Cost::kFlops, Cost::kMemory}}).value();
  EXPECT_THAT(Render(result, OutputFormat::kTable), HasSubstr("memory"));
  EXPECT_THAT(Render(result, OutputFormat::kCsv), HasSubstr("cost_name,quality_name,hypervolume,memory\n"));
  const Json json = Json::parse(Render(result, OutputFormat::kJson));
  EXPECT_EQ(json["costs"][1], (Json{{"cost", "memory"}, {"unit", "bytes"}}));
  EXPECT_EQ(json["points"][0]["cost"], 1e6);
  EXPECT_EQ(json["points"][0]["costs"], (Json{1e6, 1e9}));
  EXPECT_EQ(json["hypervolume_reference"]["costs"], (Json{1e8, 1e9}));
}

TEST(Tables, SlopesOfTasksHaveRowsAndATableOfTheirOwn) {
  const SlopesResult result =
      Slopes(Grid("transformer", {}) + Grid("glu", {}), {.baseline = "*", .per_task = true}).value();
  const std::string text = Render(result, OutputFormat::kTable);
  EXPECT_THAT(text, HasSubstr("α(F,task)"));
  EXPECT_THAT(text, HasSubstr("\nsense "));
  EXPECT_THAT(Render(result, OutputFormat::kCsv), HasSubstr("\nglu,parameters,sense,"));
  const Json json = ToJson(result);
  EXPECT_EQ(json["per_task"][0]["task"], "gloss");
  EXPECT_EQ(json["per_task"][0]["architectures"][1]["slopes"][2]["x"], "upstream");
  EXPECT_EQ(json["per_task"][0]["architectures"][1]["slopes"][2]["y"], "gloss");
  EXPECT_EQ(json["task_comparisons"].size(), 3u * 2);
  EXPECT_EQ(json["task_comparisons"][1]["y"], "sense");
}

}  // namespace
}  // namespace allometry::analysis
