#include "records/import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "common/files.h"
#include "records/csv_text.h"
#include "records/table_io.h"

namespace allometry::records {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Import Imported(std::string_view csv, std::string_view mapping = "") {
  auto result = ImportCsv(csv, ParseColumnMapping(mapping).value(), "runs.csv");
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
  return result.ok() ? std::move(result).value() : Import{};
}

std::string ImportError(std::string_view csv, std::string_view mapping = "") {
  const auto result = ImportCsv(csv, ParseColumnMapping(mapping).value(), "runs.csv");
  EXPECT_FALSE(result.ok());
  return result.ok() ? "" : result.error().message;
}

std::string MappingError(std::string_view mapping) { return ParseColumnMapping(mapping).error().message; }

TEST(CsvText, QuotesLineBreaksAndMarksOfOtherPrograms) {
  const auto lines = ParseCsv(
                         "\xEF\xBB\xBF"
                         "a,b\r\n\"x, \"\"y\"\"\",\"two\nlines\"\n\n,end",
                         "f")
                         .value();
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_THAT(lines[0].fields, ElementsAre("a", "b"));
  EXPECT_THAT(lines[1].fields, ElementsAre("x, \"y\"", "two\nlines"));
  EXPECT_EQ(lines[2].number, 5) << "counted in lines of the file";
  EXPECT_THAT(lines[2].fields, ElementsAre("", "end"));
  EXPECT_THAT(ParseCsv("a\n\"b", "f").error().message, HasSubstr("f:2: a quote is opened"));
  EXPECT_THAT(ParseCsv("a\n\"b\"c", "f").error().message, HasSubstr("f:2: text after"));
}

TEST(Import, AMappedTableBecomesCells) {
  const Import import = Imported("model,N,D,final_loss,note\nglu,1e6,2e7,3.5,x\nglu,1e6,2e7,3.6,y\nmos,2e6,2e7,3.4,z\n",
                                 "params=N,tokens=D,loss=final_loss,architecture=model,tag.note=note");
  ASSERT_THAT(import.table, SizeIs(3));
  const Record& first = import.table[0];
  EXPECT_EQ(first.architecture, "glu");
  EXPECT_EQ(first.sweep, "imported");
  EXPECT_EQ(first.state, CellState::kDone);
  EXPECT_EQ(first.metrics.at("parameters"), 1e6);
  EXPECT_EQ(first.metrics.at("validation_loss"), 3.5);
  EXPECT_EQ(first.tags.at("note"), "x");
  EXPECT_EQ(first.seed, 1u);
  EXPECT_EQ(import.table[1].seed, 2u);
  EXPECT_EQ(import.table[1].size, first.size);
  EXPECT_NE(import.table[2].size, first.size);
  EXPECT_EQ(import.table[1].cell, "glu-1M-20M-tokens-s2");
  EXPECT_THAT(import.unused_columns, IsEmpty());
  EXPECT_THAT(import.notes, Contains(HasSubstr("count as its seeds")));
}

TEST(Import, UnusedColumnsAreNamedAndMissingValuesCounted) {
  const Import import = Imported("architecture,size,seed,loss,lr\na,s,0,3,1\na,s,1,NaN,1\na,s,2,,1\n", "loss=loss");
  EXPECT_THAT(import.unused_columns, ElementsAre("lr"));
  EXPECT_FALSE(import.table[1].metrics.contains("validation_loss"));
  EXPECT_THAT(import.notes, Contains("column 'loss': 2 of 3 values are missing, the first at line 3"));
}

TEST(Import, ConstantsScoresAndComputedCosts) {
  const Import import =
      Imported("N,D,acc\n1000000,3000000,0.5\n",
               "architecture:=\"one, two\",non_embedding_parameters=N,tokens=D,score.boolq=acc,size:=s");
  const Record& r = import.table[0];
  EXPECT_EQ(r.architecture, "one, two");
  EXPECT_EQ(r.metrics.at("six_nd"), 1.8e13);
  EXPECT_EQ(r.scores.at("boolq").value, 0.5);
  EXPECT_EQ(r.finetune_state, CellState::kDone);
  EXPECT_THAT(import.notes, Contains(HasSubstr("six_nd was computed")));
}

TEST(Import, FlopsThatAreSixNdTellTheTokens) {
  const Import import = Imported("N,C,loss\n1e6,6e12,3\n1e6,1.2e13,2.9\n1e6,,2.8\n",
                                 "architecture:=a,params=N,six_nd=C,loss=loss");
  EXPECT_EQ(import.table[0].metrics.at("tokens"), 1e6);
  EXPECT_EQ(import.table[0].shape, "1M tokens");
  EXPECT_EQ(import.table[1].shape, "2M tokens");
  EXPECT_FALSE(import.table[2].metrics.contains("tokens"));
  EXPECT_THAT(import.notes, Contains(HasSubstr("tokens were computed")));
}

TEST(Import, AModelTrainedLongerIsNoSecondSeed) {
  const Import import =
      Imported("N,C,loss\n1e6,6e12,3\n1e6,1.2e13,2.9\n", "architecture:=a,params=N,flops=C,loss=loss");
  EXPECT_NE(import.table[0].shape, import.table[1].shape);
  EXPECT_EQ(import.table[1].seed, 1u);
}

TEST(Import, AnExportComesBack) {
  Record r;
  r.sweep = "tay";
  r.cell = "glu-base-s1";
  r.architecture = "glu";
  r.size = "base";
  r.shape = "nl8";
  r.seed = 18446744073709551615u;
  r.state = CellState::kDone;
  r.device = "cpu, eight cores";
  r.metrics = {{"validation_loss", 0.1 + 0.2}, {"parameters", 1e7}};
  r.finetune_state = CellState::kDone;
  r.scores = {{"gloss", {0.75, 0.01, 0.5, 1234, true}}};
  r.tags = {{"group", "a"}};
  std::stringstream text;
  WriteCsv({r}, text);
  EXPECT_EQ(RecordToJson(Imported(text.str()).table[0]), RecordToJson(r));
}

TEST(Import, ErrorsNameFileLineColumnAndWhatToDo) {
  EXPECT_THAT(ImportError(""), HasSubstr("runs.csv: the file is empty"));
  EXPECT_THAT(ImportError("architecture\n"), HasSubstr("no rows"));
  EXPECT_THAT(ImportError("model,x\na,1\n"), HasSubstr("architecture=COLUMN"));
  EXPECT_THAT(ImportError("architecture,los\na,1\n", "loss=loss"), HasSubstr("did you mean 'los'?"));
  EXPECT_THAT(ImportError("architecture,loss\na,1\nb,three\n", "loss=loss"),
              HasSubstr("runs.csv:3: column 'loss': 'three' is not a number"));
  EXPECT_THAT(ImportError("architecture,loss\na,1,2\n"), HasSubstr("runs.csv:2: 3 fields, and the header has 2"));
  EXPECT_THAT(ImportError("architecture,seed\na,-1\n"), HasSubstr("not a seed"));
  EXPECT_THAT(ImportError("architecture,seed\na,1.5\n"), HasSubstr("not a seed"));
  EXPECT_THAT(ImportError("architecture,state\na,dead\n"), HasSubstr("unknown state 'dead'"));
  EXPECT_THAT(ImportError("architecture,loss\n,1\n"), HasSubstr("without an architecture"));
  EXPECT_THAT(ImportError("architecture,x,x\na,1,2\n", "loss=x"), HasSubstr("two columns are named 'x'"));
}

TEST(Import, DuplicatedCellsAreNamedWithBothLines) {
  EXPECT_THAT(ImportError("architecture,size,seed,loss\na,s,1,3\nb,s,1,3\na,s,1,4\n"),
              HasSubstr("runs.csv:4: repeats the cell of line 2 (a, s, seed 1)"));
  EXPECT_THAT(ImportError("architecture,size,loss\na,s,3\na,s,3\n"), HasSubstr("equal in every field to line 2"));
}

TEST(ColumnMapping, WrongOnesSayWhatIsRight) {
  EXPECT_THAT(MappingError("loss"), HasSubstr("field=column"));
  EXPECT_THAT(MappingError("=x"), HasSubstr("field=column"));
  EXPECT_THAT(MappingError("validation_los=x"), HasSubstr("did you mean 'validation_loss'?"));
  EXPECT_THAT(MappingError("loss=a,validation_loss=b"), HasSubstr("given twice"));
  EXPECT_THAT(MappingError("loss=\"a"), HasSubstr("not closed"));
  const ColumnMapping mapping = ParseColumnMapping("loss=\"final, loss\" , params=Model Size").value();
  EXPECT_EQ(mapping.columns.at("validation_loss"), "final, loss");
  EXPECT_EQ(mapping.columns.at("parameters"), "Model Size");
}

TEST(ImportJsonLines, MembersOfMembersHaveDots) {
  const ColumnMapping mapping = ParseColumnMapping("architecture=config.model,loss=result.loss,seed=seed").value();
  const Import import =
      ImportJsonLines(
          "{\"config\":{\"model\":\"a\"},\"result\":{\"loss\":3.25},\"seed\":7,\"size\":\"s\"}\n\n"
          "{\"config\":{\"model\":\"b\",\"lr\":0.1},\"result\":{\"loss\":null},\"seed\":8,\"list\":[1]}\n",
          mapping, "runs.jsonl")
          .value();
  ASSERT_THAT(import.table, SizeIs(2));
  EXPECT_EQ(import.table[0].metrics.at("validation_loss"), 3.25);
  EXPECT_EQ(import.table[0].seed, 7u);
  EXPECT_EQ(import.table[0].size, "s");
  EXPECT_THAT(import.unused_columns, ElementsAre("config.lr"));
  EXPECT_THAT(import.notes, Contains(HasSubstr("'result.loss': 1 of 2")));
  EXPECT_THAT(ImportJsonLines("{}\n[1]\n", {}, "x").error().message, HasSubstr("x:2: a row"));
  EXPECT_THAT(ImportJsonLines("{\"a\":\n", {}, "x").error().message, HasSubstr("x:1"));
}

// Published tables of real runs. They are not part of the project: ALLOMETRY_SHARED_DATA names a folder with runs/.
std::string SharedRuns(const char* file) {
  const char* folder = std::getenv("ALLOMETRY_SHARED_DATA");
  return std::string(folder ? folder : "../shared/data") + "/runs/" + file;
}

TEST(ImportedTables, TheRunsReadOffChinchillasFigure4) {
  const std::string path = SharedRuns("chinchilla_fig4.csv");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there; ALLOMETRY_SHARED_DATA names the folder";
  const std::string text = common::ReadFile(path).value();
  const Import import = Imported(text, "params=Model Size,flops=Training FLOP,loss=loss,architecture:=chinchilla");
  EXPECT_THAT(import.table, SizeIs(245));
  EXPECT_THAT(import.unused_columns, ElementsAre("x", "y", "color", "hex_color"));
  EXPECT_DOUBLE_EQ(import.table[0].metrics.at("validation_loss"), 5.005581996196243);
  EXPECT_DOUBLE_EQ(import.table[0].metrics.at("parameters"), 6795600349.289497);
}

TEST(ImportedTables, The104OvertrainedModels) {
  const std::string path = SharedRuns("overtrained_104_models.csv");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there; ALLOMETRY_SHARED_DATA names the folder";
  const std::string text = common::ReadFile(path).value();
  const Import import = Imported(text,
                                 "architecture=train_dataset,params=N,non_embedding_parameters=N_no_embed,tokens=D,"
                                 "flops=flops_6nd,loss=loss_c4_val,score.boolq=acc_boolq,tag.name=name");
  ASSERT_THAT(import.table, SizeIs(104));
  const Record& first = import.table[0];
  EXPECT_EQ(first.architecture, "c4_original");
  EXPECT_EQ(first.metrics.at("tokens"), 2058081280);
  EXPECT_EQ(first.scores.at("boolq").value, 0.49143731594085693);
  EXPECT_EQ(first.tags.at("name"), "c4_original-d=1024_l=24_h=8-0.25");
  EXPECT_THAT(import.unused_columns, Contains("acc_copa"));
}

}  // namespace
}  // namespace allometry::records
