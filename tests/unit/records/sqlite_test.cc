#include "records/sqlite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "tests/unit/records/database.h"

namespace allometry::records {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

using SqliteTest = DatabaseTest;

TEST_F(SqliteTest, ACellComesWithItsCostsMetricsAndScores) {
  AddSweep(1, "tay", "active", R"({"group": "sweep", "who": "me"})");
  AddRun(1, "pretrain", "done", R"({"parameters": 100, "forward_flops": 0, "training_flops": 2.5e9})");
  AddRun(2, "finetune", "done");
  AddCell(1, "glu-base-s1", 1, 0, "pretrain", -1);
  AddCell(1, "glu-base-s1-ft", 2, 1, "finetune");
  Run("UPDATE cells SET tags_json = '{\"group\": \"cell\"}' WHERE name = 'glu-base-s1'");
  Run(R"(UPDATE runs SET run_json = '{"model": {"shape": {"d_model": 64}}}' WHERE run_id = 1)");
  AddParent(2, 1);
  AddResult(1, R"({"validation_loss": 2.5, "parameters": 99, "forward_flops": 7, "odd": "nan", "text": "x"})");
  AddResult(2, "{}", R"([{"task": "gloss", "metric": "accuracy", "value": 0.75, "standard_error": 0.01, "majority": 0.5,
                          "examples": 1000, "at_chance": false}])");
  const Table table = LoadSqlite(path_, {"tay"}).value();
  ASSERT_THAT(table, SizeIs(1));
  const Record& r = table[0];
  EXPECT_EQ(r.Name(), "tay/glu-base-s1");
  EXPECT_EQ(r.architecture, "glu");
  EXPECT_EQ(r.seed, ~uint64_t{0}) << "unsigned, kept in a signed column";
  EXPECT_EQ(r.state, CellState::kDone);
  EXPECT_EQ(r.device, "Some CPU (threads: 2)");
  EXPECT_EQ(r.tags, (std::map<std::string, std::string>{{"group", "cell"}, {"who", "me"}}));
  EXPECT_EQ(r.metrics.at("validation_loss"), 2.5);
  EXPECT_EQ(r.metrics.at("parameters"), 100) << "what is computed goes before what a trainer says";
  EXPECT_EQ(r.metrics.at("forward_flops"), 7) << "unless nothing could be computed";
  EXPECT_EQ(r.metrics.at("training_flops"), 2.5e9);
  EXPECT_TRUE(std::isnan(r.metrics.at("odd")));
  EXPECT_FALSE(r.metrics.contains("text"));
  EXPECT_EQ(r.metrics.at("d_model"), 64);
  EXPECT_EQ(r.finetune_state, CellState::kDone);
  EXPECT_EQ(r.scores.at("gloss").value, 0.75);
  EXPECT_EQ(r.scores.at("gloss").examples, 1000);
}

TEST_F(SqliteTest, StatesAndReasons) {
  AddSweep(1, "tay");
  const std::vector<std::string> states{"pending", "running", "failed", "diverged", "done"};
  for (int i = 0; i < 5; ++i) {
    AddRun(i + 1, "pretrain", states[i], "{}", i == 2 ? "out of disk" : "");
    AddCell(1, "c" + std::to_string(i), i + 1, 10 - i, "pretrain", i);
  }
  AddRun(9, "finetune", "diverged", "{}", "loss is nan");
  AddCell(1, "c4-ft", 9, 11, "finetune");
  AddParent(9, 5);
  const Table table = LoadSqlite(path_, {}).value();
  ASSERT_THAT(table, SizeIs(5));
  EXPECT_EQ(table[0].cell, "c4") << "in the order of the grid";
  EXPECT_EQ(table[0].finetune_state, CellState::kDiverged);
  EXPECT_EQ(table[0].finetune_reason, "loss is nan");
  EXPECT_EQ(table[1].state, CellState::kDiverged);
  EXPECT_EQ(table[2].state, CellState::kFailed);
  EXPECT_EQ(table[2].reason, "out of disk");
  EXPECT_FALSE(table[2].finetune_state);
  EXPECT_EQ(table[3].state, CellState::kUnfinished);
  EXPECT_EQ(table[3].reason, "running");
}

TEST_F(SqliteTest, LastWordsThatAreNotTextComeOutAsText) {
  AddSweep(1, "tay");
  AddRun(1, "pretrain", "failed");
  AddCell(1, "a", 1, 0, "pretrain");
  Run("UPDATE runs SET error = CAST(X'6F6B20FF' AS TEXT)");
  EXPECT_EQ(LoadSqlite(path_, {}).value().at(0).reason, "ok \xEF\xBF\xBD");
}

TEST_F(SqliteTest, SweepsShareRunsAndKeepTheirOwnFineTuning) {
  AddSweep(1, "one");
  AddSweep(2, "two");
  AddSweep(3, "half", "expanding");
  AddRun(1, "pretrain", "done");
  AddRun(2, "finetune", "done");
  for (int sweep : {1, 2, 3}) AddCell(sweep, "a", 1, 0, "pretrain");
  AddCell(1, "a-ft", 2, 1, "finetune");
  AddParent(2, 1);
  AddResult(2, "{}", R"([{"task": "t", "value": 0.5}])");
  const Table both = LoadSqlite(path_, {}).value();
  ASSERT_THAT(both, SizeIs(2)) << "a sweep that is still expanding is invisible";
  EXPECT_THAT(both[0].scores, SizeIs(1));
  EXPECT_THAT(both[1].scores, SizeIs(0));
  EXPECT_THAT(LoadSqlite(path_, {"two", "two"}).value(), SizeIs(1));
}

TEST_F(SqliteTest, SeveralMetricsOfATaskCountWithTheirMean) {
  AddSweep(1, "tay");
  AddRun(1, "pretrain", "done");
  AddRun(2, "finetune", "done");
  AddCell(1, "a", 1, 0, "pretrain");
  AddCell(1, "a-ft", 2, 1, "finetune");
  AddParent(2, 1);
  AddResult(2, "{}", R"([{"task": "mrpc", "metric": "f1", "value": 0.9, "standard_error": 0.01, "at_chance": true},
                         {"task": "mrpc", "metric": "accuracy", "value": 0.8, "standard_error": 0.02}])");
  const Score score = LoadSqlite(path_, {}).value().at(0).scores.at("mrpc");
  EXPECT_NEAR(score.value, 0.85, 1e-12);
  EXPECT_EQ(score.standard_error, 0.02);
  EXPECT_FALSE(score.at_chance);
}

TEST_F(SqliteTest, ManyPagesInTheOrderOfTheGridBesideAnOpenWriter) {
  AddSweep(1, "big");
  Run("BEGIN");
  for (int i = 1; i <= 1203; ++i) {
    AddRun(i, "pretrain", "pending");
    AddCell(1, "c" + std::to_string(i), i, 5000 - i / 3, "pretrain", i);  // positions repeat; names order them
  }
  Run("COMMIT");
  Run("BEGIN IMMEDIATE");
  Run("UPDATE runs SET state = 'done'");
  const Table table = LoadSqlite(path_, {"big"}).value();
  Run("COMMIT");
  ASSERT_THAT(table, SizeIs(1203));
  std::set<std::string> names;
  for (const Record& record : table) {
    names.insert(record.cell);
    EXPECT_EQ(record.state, CellState::kUnfinished) << "what is not committed is not seen";
  }
  EXPECT_THAT(names, SizeIs(1203));
}

TEST_F(SqliteTest, UnwantedCellsAreNotThere) {
  AddSweep(1, "tay");
  AddRun(1, "pretrain", "done");
  AddCell(1, "a", 1, 0, "pretrain");
  Run("UPDATE cells SET wanted = 0");
  EXPECT_THAT(LoadSqlite(path_, {}).value(), SizeIs(0));
}

TEST_F(SqliteTest, MistakesAreNamed) {
  AddSweep(1, "quickstart");
  EXPECT_THAT(LoadSqlite(path_, {"quickstrat"}).error().message, HasSubstr("did you mean 'quickstart'"));
  EXPECT_EQ(LoadSqlite(folder_ / "none.db", {}).error().code, common::ErrorCode::kNotFound);
  std::ofstream(folder_ / "text.db") << std::string(5000, 'x');
  EXPECT_EQ(LoadSqlite(folder_ / "text.db", {}).error().code, common::ErrorCode::kFailedPrecondition);
  std::ofstream(folder_ / "empty.db");
  EXPECT_THAT(LoadSqlite(folder_ / "empty.db", {}).error().message, HasSubstr("not a database of this program"));
  Run("PRAGMA user_version=999");
  EXPECT_THAT(LoadSqlite(path_, {}).error().message, HasSubstr("use a newer program"));
}

TEST_F(SqliteTest, BrokenTextIsDataLossAndNoCrash) {
  AddSweep(1, "tay");
  AddRun(1, "pretrain", "done", "{broken");
  AddCell(1, "a", 1, 0, "pretrain");
  EXPECT_EQ(LoadSqlite(path_, {}).error().code, common::ErrorCode::kDataLoss);
}

// What a coordinator commits besides changes of state does not make a new version.
TEST_F(SqliteTest, TheDataVersionFollowsEventsAndTheFile) {
  AddSweep(1, "tay");
  const std::string before = DataVersion(path_).value();
  Run("UPDATE workers SET last_seen_unix_ms = 5");
  EXPECT_EQ(DataVersion(path_).value(), before);
  std::set<std::string> versions{before};
  for (int event = 1; event <= 3; ++event) {
    Run("BEGIN; UPDATE sweeps SET state = 'paused'; INSERT INTO events (event, sweep_id, unix_ms) VALUES (" +
        std::to_string(event) + ", 1, 0); COMMIT");
    EXPECT_TRUE(versions.insert(DataVersion(path_).value()).second);
  }
  Run("PRAGMA wal_checkpoint(TRUNCATE)");
  EXPECT_TRUE(versions.contains(DataVersion(path_).value())) << "the same data, in the file itself";
  std::filesystem::copy_file(path_, folder_ / "copy.db");
  EXPECT_FALSE(versions.contains(DataVersion(folder_ / "copy.db").value()));
  EXPECT_EQ(DataVersion(folder_ / "none.db").error().code, common::ErrorCode::kNotFound);
}

}  // namespace
}  // namespace allometry::records
