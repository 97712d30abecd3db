#include "records/table_cache.h"

#include <gmock/gmock.h>

#include <set>
#include <thread>

#include "tests/unit/records/database.h"

namespace allometry::records {
namespace {

class TableCacheTest : public DatabaseTest {
 protected:
  void SetUp() override {
    DatabaseTest::SetUp();
    AddSweep(1, "one");
    AddSweep(2, "two");
    for (int run : {1, 2}) {
      AddRun(run, "pretrain", "done");
      AddCell(run, "a", run, 0, "pretrain");
    }
  }
  void Change(const std::string& sql) {
    Run("BEGIN; " + sql + "; INSERT INTO events (sweep_id, unix_ms) VALUES (1, 0); COMMIT");
  }
};

TEST_F(TableCacheTest, ATableIsReadAgainOnlyWhenTheDataChanged) {
  TableCache cache;
  const auto first = cache.Load(path_, {"one"}).value();
  EXPECT_EQ(first->at(0).state, CellState::kDone);
  EXPECT_EQ(cache.Load(path_, {"one"}).value(), first);
  Change("UPDATE runs SET state = 'failed' WHERE run_id = 1");
  const auto second = cache.Load(path_, {"one"}).value();
  EXPECT_EQ(second->at(0).state, CellState::kFailed);
  EXPECT_EQ(first->at(0).state, CellState::kDone) << "who holds a table keeps it as it was";
  EXPECT_EQ(cache.Load(path_, {"one"}).value(), second);
}

TEST_F(TableCacheTest, OtherSweepsAreAnotherTable) {
  TableCache cache;
  EXPECT_EQ(cache.Load(path_, {}).value()->size(), 2u);
  EXPECT_EQ(cache.Load(path_, {"two"}).value()->at(0).sweep, "two");
  EXPECT_EQ(cache.Load(path_, {"one"}).value()->at(0).sweep, "one");
}

TEST_F(TableCacheTest, BeyondItsCellsTheOneUsedLongestAgoGoes) {
  TableCache cache(2);
  const auto one = cache.Load(path_, {"one"}).value(), two = cache.Load(path_, {"two"}).value();
  EXPECT_EQ(cache.Load(path_, {"one"}).value(), one);
  const auto both = cache.Load(path_, {}).value();  // two cells: nothing else fits beside them
  EXPECT_EQ(cache.Load(path_, {}).value(), both);
  EXPECT_NE(cache.Load(path_, {"two"}).value(), two);
}

TEST_F(TableCacheTest, AnErrorIsToldEachTimeAndNotKept) {
  TableCache cache;
  EXPECT_EQ(cache.Load(path_, {"three"}).error().code, common::ErrorCode::kNotFound);
  Run("INSERT INTO sweeps (sweep_id, name, state, policy, submitted_unix_ms) VALUES (3, 'three', 'active', 'fifo', 0)");
  EXPECT_TRUE(cache.Load(path_, {"three"}).ok()) << "even without an event";
  EXPECT_EQ(cache.Load(folder_ / "none.db", {}).error().code, common::ErrorCode::kNotFound);
}

TEST_F(TableCacheTest, ThreadsThatAskAtOnceShareOneTable) {
  TableCache cache;
  std::vector<std::shared_ptr<const Table>> tables(8);
  {
    std::vector<std::jthread> threads;
    for (auto& table : tables) threads.emplace_back([&] { table = cache.Load(path_, {}).value(); });
  }
  EXPECT_EQ(std::set(tables.begin(), tables.end()).size(), 1u);
}

}  // namespace
}  // namespace allometry::records
