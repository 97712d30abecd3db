#include "cli/score_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace allometry::cli {
namespace {

using common::OutputFormat;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kTasks[] = {"glue_cola", "superglue_multirc", "squad"};

v1::ScoresResponse Response(const std::vector<std::string>& architectures, int sizes, int seeds) {
  v1::ScoresResponse scores;
  for (const char* task : kTasks) scores.add_columns()->set_name(task);
  for (const char* average : {"squad", "downstream", "tasks"}) {
    v1::ScoreColumn* column = scores.add_columns();
    column->set_name(average);
    column->set_average(true);
  }
  for (const std::string& architecture : architectures)
    for (int size = 0; size < sizes; ++size)
      for (int seed = 0; seed < seeds; ++seed) {
        v1::ScoredRow* row = scores.add_rows();
        row->set_architecture(architecture);
        row->set_size("size" + std::to_string(size));
        row->set_seed(static_cast<uint64_t>(seed));
        row->set_cell(architecture + "-" + row->size() + "-s" + std::to_string(seed));
        for (int c = 0; c < scores.columns_size(); ++c) {
          v1::ScoreValue* score = row->add_scores();
          score->set_value(0.1 * (c + 1) + 0.01 * size);
          score->set_tasks(c == 5 ? 17 : 1);
        }
      }
  return scores;
}

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> LinesWith(const std::string& text, const std::string& part) {
  std::vector<std::string> found;
  for (const std::string& line : LinesOf(text))
    if (line.find(part) != std::string::npos) found.push_back(line);
  return found;
}

TEST(ScoreBlocks, HasALineAScoreAndAColumnACell) {
  const std::string text = ScoreBlocks(Response({"glu", "transformer"}, 2, 1), 80);
  const auto lines = LinesOf(text);
  EXPECT_EQ(lines[0], "                   glu           transformer");
  EXPECT_EQ(lines[1], "                   size0  size1  size0  size1");
  EXPECT_EQ(lines[2], "glue_cola           10.0   11.0   10.0   11.0");
  EXPECT_EQ(lines[4], "squad               30.0   31.0   30.0   31.0");
  EXPECT_EQ(lines[5], "SQuAD               40.0   41.0   40.0   41.0");
  EXPECT_EQ(lines[6], "D                   50.0   51.0   50.0   51.0");
  EXPECT_EQ(lines[7], "mean of 17          60.0   61.0   60.0   61.0");
}

TEST(ScoreBlocks, FitsTheTerminalAndLosesNoCell) {
  const std::vector<std::string> architectures = {"transformer", "a-very-long-architecture-name", "glu", "mos"};
  const v1::ScoresResponse scores = Response(architectures, 3, 2);
  for (int width : {40, 80, 120, 400}) {
    const std::string text = ScoreBlocks(scores, width);
    int cells = 0;
    for (const std::string& line : LinesWith(text, "size")) {
      EXPECT_LE(common::DisplayWidth(line), width);
      for (size_t at = line.find("size"); at != std::string::npos; at = line.find("size", at + 1)) ++cells;
    }
    EXPECT_EQ(cells, scores.rows_size()) << width;
    for (const std::string& line : LinesWith(text, "glue_cola")) EXPECT_LE(common::DisplayWidth(line), width);
  }
  EXPECT_EQ(LinesWith(ScoreBlocks(scores, 0), "glue_cola").size(), 1u) << "unbounded is one block";
  EXPECT_EQ(LinesWith(ScoreBlocks(scores, 80), "glue_cola").size(), 4u) << "an architecture each";
}

TEST(ScoreBlocks, SignsAreExplainedWhereTheyAreUsed) {
  v1::ScoresResponse scores = Response({"glu"}, 2, 1);
  const std::string plain = ScoreBlocks(scores, 80);
  for (const char* sign : {"*", "!", "±", "unparsed"}) EXPECT_THAT(plain, Not(HasSubstr(sign)));
  v1::ScoreValue* score = scores.mutable_rows(0)->mutable_scores(0);
  score->set_at_chance(true);
  score->set_selected_on_test(true);
  score->set_spread(0.0123);
  score->set_unparsed(0.125);
  scores.mutable_rows(1)->mutable_scores(0)->set_unparsed(0.01);
  scores.mutable_rows(1)->mutable_scores(1)->clear_value();
  const std::string text = ScoreBlocks(scores, 80);
  EXPECT_THAT(text, HasSubstr("glue_cola          10.0 ±1.2*!   11.0\n"));
  EXPECT_THAT(text, HasSubstr("  unparsed %            12.5\n")) << "and nothing at one percent";
  EXPECT_THAT(text, HasSubstr("superglue_multirc       20.0        -\n"));
  EXPECT_THAT(text, HasSubstr("* at chance"));
  EXPECT_THAT(text, HasSubstr("! the checkpoint was selected"));
  EXPECT_THAT(text, HasSubstr("unparsed: "));
  EXPECT_THAT(text, HasSubstr("± standard deviation"));
}

TEST(ScoreBlocks, SaysWhatDIsAndWhoIsLeftOut) {
  v1::ScoresResponse scores = Response({"glu"}, 1, 1);
  EXPECT_THAT(ScoreBlocks(scores, 80), HasSubstr("D mean score\n"));
  scores.mutable_downstream()->set_definition("benchmarks");
  scores.mutable_downstream()->add_parts("glue");
  scores.mutable_downstream()->add_parts("squad");
  scores.mutable_downstream()->set_note("not in D: mine");
  scores.add_left_out()->set_reason("glue: no score of glue_rte");
  const std::string text = ScoreBlocks(scores, 80);
  EXPECT_THAT(text, HasSubstr("D mean of glue, squad\nnot in D: mine\n"));
  EXPECT_THAT(text, HasSubstr("1 cell left out: glue: no score of glue_rte"));
}

TEST(ScoreBlocks, TidyRowsAreFractionsThatAreThere) {
  v1::ScoresResponse scores = Response({"glu"}, 1, 1);
  scores.mutable_rows(0)->mutable_scores(1)->clear_value();
  const common::Json json = common::TableToJson(TidyScores(scores));
  ASSERT_EQ(json["scores"].size(), 5u);
  EXPECT_EQ(json["scores"][0]["cell"], "glu-size0-s0");
  EXPECT_EQ(json["scores"][0]["score"], "glue_cola");
  EXPECT_EQ(json["scores"][0]["value"], 0.1);
  EXPECT_TRUE(json["scores"][0]["standard_error"].is_null());
  EXPECT_FALSE(json["scores"][1]["average"]);
  EXPECT_TRUE(json["scores"][2]["average"]) << "SQuAD is a task and a benchmark";
  for (OutputFormat format : {OutputFormat::kCsv, OutputFormat::kMarkdown})
    EXPECT_THAT(common::Render(ScoresForPeople(scores), format), HasSubstr("glu-size0"));
  EXPECT_FALSE(ScoreBlocks({}, 80).empty());
}

}  // namespace
}  // namespace allometry::cli
