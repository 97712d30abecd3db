#include "common/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <sstream>

namespace allometry::common {
namespace {

using ::testing::HasSubstr;

Table Sample() {
  Table t{.name = "cells"};
  t.columns = {{"cell", "", "", ColumnKind::kText},
               {"loss", "", "nats", ColumnKind::kNumber, 2},
               {"parameters", "params", "", ColumnKind::kQuantity},
               {"seeds", "", "", ColumnKind::kInteger},
               {"done", "", "", ColumnKind::kBoolean}};
  t.rows = {{"a|b, \"c\"", 2.5, int64_t{1173456}, int64_t{2}, true}, {"α", TableValue(), 999.6, int64_t{10}, false}};
  t.notes = {"a note"};
  return t;
}

TEST(Table, AlignsNumbersRightAndTextLeft) {
  EXPECT_EQ(Render(Sample(), OutputFormat::kTable),
            "cell      loss  params  seeds  done\n"
            "a|b, \"c\"  2.50   1.17M      2   yes\n"
            "α            -      1k     10    no\n"
            "a note\n");
}

TEST(Table, CsvKeepsFullValuesAndQuotes) {
  EXPECT_EQ(Render(Sample(), OutputFormat::kCsv),
            "cell,loss,parameters,seeds,done\n"
            "\"a|b, \"\"c\"\"\",2.5,1173456,2,true\n"
            "α,,999.6,10,false\n");
}

TEST(Table, MarkdownEscapesBars) {
  EXPECT_THAT(
      Render(Sample(), OutputFormat::kMarkdown),
      HasSubstr("| cell | loss | params | seeds | done |\n| --- | ---: | ---: | ---: | ---: |\n| a\\|b, \"c\" |"));
}

TEST(Table, JsonIsAnObjectWithTheRowsUnderTheTablesName) {
  const Json json = Json::parse(Render(Sample(), OutputFormat::kJson));
  EXPECT_EQ(json["cells"][0]["parameters"], 1173456);
  EXPECT_TRUE(json["cells"][1]["loss"].is_null());
  EXPECT_EQ(json["columns"][1], (Json{{"name", "loss"}, {"title", "loss"}, {"unit", "nats"}}));
  EXPECT_EQ(json["notes"][0], "a note");
}

TEST(Table, TextColumnsShrinkToTheTerminalAndNumbersDoNot) {
  Table t = Sample();
  t.rows[0][0] = std::string(300, 'x');
  std::istringstream lines(Render(t, OutputFormat::kTable, 60));
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  EXPECT_THAT(line, HasSubstr("x…  2.50   1.17M"));
  EXPECT_LE(line.size(), 62u) << "60 characters, of which the ellipsis has three bytes";
  EXPECT_THAT(Render(t, OutputFormat::kTable, 0), HasSubstr(std::string(300, 'x')));
}

TEST(Table, RaggedRowsAreABrokenInvariant) {
  Table t = Sample();
  t.rows.push_back({"short"});
  for (OutputFormat format : {OutputFormat::kTable, OutputFormat::kCsv, OutputFormat::kJson, OutputFormat::kMarkdown})
    EXPECT_THROW(Render(t, format), std::invalid_argument);
}

TEST(Table, QuantitiesNeverShowFourDigits) {
  EXPECT_EQ(FormatQuantity(0), "0");
  EXPECT_EQ(FormatQuantity(999), "999");
  EXPECT_EQ(FormatQuantity(999.6), "1k");
  EXPECT_EQ(FormatQuantity(-2.46e10), "-24.6G");
  EXPECT_EQ(FormatQuantity(1.1e21), "1.1e+21");
  EXPECT_EQ(FormatQuantity(0.0123), "0.0123");
}

TEST(Table, NonFiniteNumbersAreWordsInJson) {
  EXPECT_EQ(JsonNumber(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(JsonNumber(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(JsonNumber(0.1), 0.1);
}

TEST(OutputFormatNames, ReadBackAndMistakesAreNamed) {
  for (const char* name : {"table", "csv", "json", "markdown"})
    EXPECT_STREQ(OutputFormatName(ParseOutputFormat(name).value()), name);
  EXPECT_THAT(ParseOutputFormat("jsn").error().message, HasSubstr("did you mean 'json'"));
}

}  // namespace
}  // namespace allometry::common
