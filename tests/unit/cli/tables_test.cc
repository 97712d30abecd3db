#include "cli/tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/export_rows.h"
#include "cli/names.h"
#include "cli/output.h"

namespace allometry::cli {
namespace {

using common::Json;
using common::OutputFormat;
using ::testing::HasSubstr;
using ::testing::Not;

v1::SlopesResponse Slopes() {
  v1::SlopesResponse response;
  v1::ArchitectureSlopes* architecture = response.add_architectures();
  architecture->set_architecture("glu");
  v1::Slope* slope = architecture->add_slopes();
  slope->set_x("flops");
  slope->set_y("upstream");
  slope->set_known(true);
  slope->set_alpha(0.5414);
  slope->mutable_seed_interval()->set_known(true);
  slope->mutable_seed_interval()->set_low(0.5);
  slope->mutable_seed_interval()->set_high(0.6);
  slope->add_flags("curved");
  v1::Slope* line = architecture->add_slopes();
  line->set_x("parameters");
  line->set_y("upstream");
  line->set_known(true);
  line->set_alpha(-0.25);
  line->mutable_line_interval()->set_known(true);
  line->mutable_line_interval()->set_low(-0.5);
  v1::Slope* refused = architecture->add_slopes();
  refused->set_x("upstream");
  refused->set_y("downstream");
  refused->set_refused("one size");
  return response;
}

TEST(Tables, SlopesForPeopleAndForPrograms) {
  const common::Table people = SlopesTable(Slopes(), false);
  ASSERT_EQ(people.rows.size(), 1u);
  EXPECT_EQ(std::get<std::string>(people.rows[0][1]), "0.541 ±0.050");
  EXPECT_EQ(std::get<std::string>(people.rows[0][2]), "-");
  EXPECT_EQ(std::get<std::string>(people.rows[0][3]), "-0.250 ±0.250 L");
  EXPECT_EQ(std::get<std::string>(people.rows[0][4]), "-");
  EXPECT_THAT(common::Render(people, OutputFormat::kTable, 0), HasSubstr("a(U,D): one size (glu)"));
  const Json json = common::TableToJson(SlopesTable(Slopes(), true));
  ASSERT_EQ(json["slopes"].size(), 3u);
  EXPECT_EQ(json["slopes"][0]["alpha"], 0.5414);
  EXPECT_EQ(json["slopes"][0]["seed_low"], 0.5);
  EXPECT_TRUE(json["slopes"][0]["line_low"].is_null());
  EXPECT_TRUE(json["slopes"][2]["alpha"].is_null());
  EXPECT_EQ(json["slopes"][2]["refused"], "one size");
}

TEST(Tables, EveryTableRendersInEveryFormatWithoutRows) {
  for (const common::Table& table :
       {CellsTable({}), SweepsTable({}), WorkersTable({}), PlanTable({}, true), AttemptsTable({}),
        SlopesTable({}, true), SlopesTable({}, false), ParetoTable({}, {})})
    for (OutputFormat format : {OutputFormat::kTable, OutputFormat::kCsv, OutputFormat::kJson, OutputFormat::kMarkdown})
      EXPECT_FALSE(common::Render(table, format).empty());
}

TEST(Tables, EveryRowHasItsColumns) {
  v1::PlanResponse plan;
  plan.add_cells()->set_cell("a");
  v1::ParetoResponse pareto;
  pareto.add_points()->set_cell("a");
  for (const common::Table& table :
       {CellsTable({v1::CellStatus()}), SweepsTable({v1::Sweep()}), WorkersTable({v1::WorkerInfo()}),
        PlanTable(plan, false), AttemptsTable({v1::AttemptInfo()}), ParetoTable(pareto, {})}) {
    ASSERT_EQ(table.rows.size(), 1u);
    EXPECT_EQ(table.rows[0].size(), table.columns.size()) << table.name;
  }
}

TEST(Tables, ExportRowsGetAColumnForEachKeyOfAnyRow) {
  const std::vector<Json> rows{Json::parse(R"({"cell":"a","loss":4,"extra":{"x":1}})"),
                               Json::parse(R"({"cell":"b,c","loss":4.5,"seed":1})")};
  EXPECT_EQ(common::Render(RowsTable(rows, "cells"), OutputFormat::kCsv, 0),
            "cell,extra,loss,seed\na,\"{\"\"x\"\":1}\",4,\n\"b,c\",,4.5,1\n");
}

TEST(Names, AreThoseOfTheProtoWithoutPrefix) {
  EXPECT_EQ(KindName(v1::RUN_KIND_PRETRAIN), "pretrain");
  EXPECT_EQ(StateName(v1::RUN_STATE_DIVERGED), "diverged");
  EXPECT_EQ(StateName(v1::RUN_STATE_UNSPECIFIED), "");
  EXPECT_EQ(ReasonName(v1::WAIT_REASON_PARENT_PENDING), "parent_pending");
  EXPECT_EQ(SweepStateName(v1::SWEEP_STATE_FINISHED), "finished");
  EXPECT_EQ(*ParseState("done"), v1::RUN_STATE_DONE);
  EXPECT_THAT(ParseState("dome").error().message, HasSubstr("did you mean 'done'"));
}

TEST(Output, DurationsAndTimes) {
  EXPECT_EQ(FormatDuration(0), "0:00");
  EXPECT_EQ(FormatDuration(59.6), "1:00");
  EXPECT_EQ(FormatDuration(3723), "1:02:03");
  EXPECT_EQ(FormatDuration(-1), "-");
  EXPECT_EQ(FormatTime(0), "-");
  EXPECT_EQ(FormatTime(1'000'000'000'000), "2001-09-09 01:46:40");
}

}  // namespace
}  // namespace allometry::cli
