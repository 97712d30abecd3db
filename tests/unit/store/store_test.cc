#include "coordinator/store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>
#include <sstream>

#include "common/json.h"
#include "coordinator/store/reader.h"
#include "records/packed_table.h"
#include "records/sqlite.h"

namespace allometry::coordinator::store {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    std::string name = (fs::temp_directory_path() / "allometry_store_XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~StoreTest() override { fs::remove_all(folder_); }

  std::unique_ptr<Store> OpenStore(Store::Options options = {}) {
    auto store = Store::Open(folder_ / "allometry.db", std::move(options));
    EXPECT_TRUE(store.ok()) << store.error().message;
    return std::move(store).value();
  }

  static void PutSweepAndRun(Store& store) {
    SweepRow sweep;
    sweep.sweep_id = 1;
    sweep.name = "s";
    store.PutSweep(sweep);
    scheduler::Run run;
    run.id = 1;
    run.flops = 5e15;
    run.steps = 100;
    store.InsertRun({&run, "id-1", "builtin", "{}", R"({"forward_flops":7,"parameters":0})", "auto"});
    CellRow cell;
    cell.sweep_id = 1;
    cell.name = "c";
    cell.run_id = 1;
    cell.position = 1;
    cell.kind = "pretrain";
    cell.seed = std::numeric_limits<uint64_t>::max();
    store.PutCell(cell);
    WorkerRow worker;
    worker.worker_id = 1;
    worker.worker_uuid = "w";
    worker.name = "w";
    store.PutWorker(worker);
  }

  static scheduler::Lease NewAttempt(Store& store, int64_t id, int64_t first_step) {
    scheduler::Lease lease;
    lease.attempt_id = id;
    lease.run_id = lease.sweep_id = 1;
    lease.placements = {{.worker_id = 1}};
    lease.generation = static_cast<uint32_t>(id);
    lease.first_step = lease.last_step = first_step;
    store.InsertAttempt(lease, 0);
    return lease;
  }

  fs::path folder_;
};

TEST_F(StoreTest, CommittedRowsAreThereAfterReopening) {
  {
    auto store = OpenStore();
    store->Begin();
    PutSweepAndRun(*store);
    NewAttempt(*store, 1, 0);
    ASSERT_TRUE(store->Commit().ok());
  }
  auto store = OpenStore();
  scheduler::State state;
  state.sweeps[1].id = 1;
  state.sweeps[1].policy = scheduler::FindPolicy("");
  store->LoadRuns(state);
  ASSERT_TRUE(store->status().ok());
  ASSERT_EQ(state.runs.size(), 1u);
  EXPECT_EQ(state.runs[0].flops, 5e15);
  EXPECT_THAT(state.runs[0].sweeps, ElementsAre(1));
  EXPECT_EQ(state.runs[0].live_attempt, 1);
  EXPECT_EQ(state.next_attempt_id, 2);
  EXPECT_EQ(store->CellByName(1, "c")->seed, std::numeric_limits<uint64_t>::max());
}

TEST_F(StoreTest, TheRanksOfALiveGangAreReadBack) {
  {
    auto store = OpenStore();
    store->Begin();
    PutSweepAndRun(*store);
    WorkerRow second;
    second.worker_id = 2;
    second.worker_uuid = second.name = "second";
    store->PutWorker(second);
    scheduler::Lease lease;
    lease.attempt_id = lease.run_id = lease.sweep_id = 1;
    lease.generation = 1;
    lease.placements = {{.worker_id = 2}, {.worker_id = 1}, {.worker_id = 1}};
    store->InsertAttempt(lease, 0);
    lease.placements[2].finished = true;
    store->UpdateAttempt(lease);
    ASSERT_TRUE(store->Commit().ok());
  }
  auto store = OpenStore();
  scheduler::State state;
  state.sweeps[1].id = 1;
  state.sweeps[1].policy = scheduler::FindPolicy("");
  store->LoadRuns(state);
  ASSERT_TRUE(store->status().ok());
  const scheduler::Lease& lease = state.leases.at(1);
  ASSERT_EQ(lease.placements.size(), 3u);
  EXPECT_EQ(lease.worker_id(), 2);
  EXPECT_EQ(lease.placements[1].worker_id, 1);
  EXPECT_FALSE(lease.placements[1].finished);
  EXPECT_TRUE(lease.placements[2].finished);
  EXPECT_EQ(state.runs[0].last_worker, 2) << "rank 0's";
  EXPECT_TRUE(store->AttemptIsOf(1, 1));
  EXPECT_TRUE(store->AttemptIsOf(1, 2));
  EXPECT_FALSE(store->AttemptIsOf(1, 3));
  EXPECT_THAT(store->AttemptsOf(1).front().rank_workers, ElementsAre(2, 1, 1));
}

TEST_F(StoreTest, AFailedStatementFailsTheTransactionAndOnlyThat) {
  auto store = OpenStore();
  store->Begin();
  store->SetMeta("a", "1");
  store->SetWanted(1, 1, true);
  scheduler::Lease orphan;
  orphan.attempt_id = orphan.run_id = orphan.sweep_id = 9;
  orphan.placements = {{.worker_id = 9}};
  store->InsertAttempt(orphan, 0);  // no such run
  store->SetMeta("b", "1");
  EXPECT_FALSE(store->Commit().ok());
  EXPECT_EQ(store->Meta("a"), "");
  store->Begin();
  store->SetMeta("c", "1");
  EXPECT_TRUE(store->Commit().ok());
  EXPECT_EQ(store->Meta("c"), "1");
}

TEST_F(StoreTest, TheDatabaseItselfRefusesTwoLiveAttemptsOfARun) {
  auto store = OpenStore();
  store->Begin();
  PutSweepAndRun(*store);
  NewAttempt(*store, 1, 0);
  NewAttempt(*store, 2, 0);
  EXPECT_FALSE(store->Commit().ok());
}

TEST_F(StoreTest, ADatabaseFromTheFutureIsRefused) {
  OpenStore();
  auto db = Database::Open(folder_ / "allometry.db", {});
  ASSERT_TRUE(db.ok());
  (*db)->Execute("PRAGMA user_version=999");
  db->reset();
  const auto refused = Store::Open(folder_ / "allometry.db");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, common::ErrorCode::kFailedPrecondition);
  EXPECT_THAT(refused.error().message, HasSubstr("schema 999"));
}

TEST_F(StoreTest, AFileThatIsNoDatabaseIsRefused) {
  FILE* file = fopen((folder_ / "allometry.db").c_str(), "w");
  for (int i = 0; i < 1000; ++i) fputs("not a database\n", file);
  fclose(file);
  EXPECT_EQ(Store::Open(folder_ / "allometry.db").error().code, common::ErrorCode::kDataLoss);
}

TEST_F(StoreTest, NetworkFileSystemsAreKnown) {
  EXPECT_TRUE(IsNetworkFileSystem(0x6969));                            // NFS
  EXPECT_TRUE(IsNetworkFileSystem(static_cast<int32_t>(0xFF534D42)));  // CIFS, as a signed word
  EXPECT_FALSE(IsNetworkFileSystem(0xEF53));                           // ext4
  EXPECT_TRUE(RefuseNetworkFileSystem(folder_).ok());
}

TEST_F(StoreTest, LogsAreReadFromAnyOffset) {
  auto store = OpenStore();
  store->Begin();
  PutSweepAndRun(*store);
  NewAttempt(*store, 1, 0);
  store->AddLog(1, "stderr", 0, "hello ");
  store->AddLog(1, "stderr", 6, std::string("w\0rld", 5));
  store->AddLog(1, "stderr", 6, "sent twice");
  store->AddLog(1, "stdout", 0, "other");
  ASSERT_TRUE(store->Commit().ok());
  auto reader = Reader::Open(folder_ / "allometry.db");
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  const auto pieces = (*reader)->Logs(1, "stderr", 4, 1'000);
  ASSERT_TRUE(pieces.ok());
  std::string text;
  for (const LogPiece& piece : *pieces) text += piece.data;
  EXPECT_EQ(text, std::string("o w\0rld", 7));
  EXPECT_EQ(pieces->front().offset, 4);
}

TEST_F(StoreTest, ExportsFollowTheLineageOfTheAcceptedAttempt) {
  auto store = OpenStore();
  store->Begin();
  PutSweepAndRun(*store);
  scheduler::Lease first = NewAttempt(*store, 1, 0);
  store->AddMetrics(1, 0, "loss", {10, 20, 30}, {3.0, 2.0, 1.5});
  store->CloseAttempt({first, scheduler::Outcome::kLost, "gone"}, {}, 0);
  scheduler::Lease second = NewAttempt(*store, 2, 20);  // from the checkpoint at 20: the point at 30 is not of its past
  store->AddMetrics(2, 0, "loss", {30, 40}, {1.6, 1.2});
  store->CloseAttempt({second, scheduler::Outcome::kDone, ""}, {true}, 0);
  scheduler::Run run;
  run.id = 1;
  run.state = scheduler::RunState::kDone;
  store->UpdateRun(run);
  store->SetAcceptedAttempt(1, 2);
  store->PutResult({1, 2, 1, R"({"validation_loss":1.1,"forward_flops":999,"parameters":11})",
                    R"([{"task":"wic","value":0.6}])", "{}"});
  store->AddEvent(1, 1, 1, 0);
  ASSERT_TRUE(store->Commit().ok());

  auto reader = std::move(Reader::Open(folder_ / "allometry.db")).value();
  auto rows = [&](const std::string& what) {
    std::vector<common::Json> all;
    auto exporter = std::move(Exporter::Start(reader.get(), what, "s")).value();
    for (auto page = exporter->NextPage(); page && *page; page = exporter->NextPage())
      for (const std::string& row : **page) all.push_back(common::Json::parse(row));
    return all;
  };
  std::vector<double> losses;
  for (const auto& row : rows("metrics")) losses.push_back(row["value"]);
  EXPECT_THAT(losses, ElementsAre(3.0, 2.0, 1.6, 1.2));
  const auto cells = rows("cells");
  ASSERT_EQ(cells.size(), 1u);
  EXPECT_EQ(cells[0]["validation_loss"], 1.1);
  EXPECT_EQ(cells[0]["forward_flops"], 7);  // computed, not claimed
  EXPECT_EQ(cells[0]["parameters"], 11);    // of a trainer of one's own nothing is computed
  EXPECT_EQ(cells[0]["seed"], std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(rows("scores").at(0)["task"], "wic");
  const auto text = [&](const std::string& what, const std::string& format) {
    auto exporter = std::move(Exporter::Start(reader.get(), what, "")).value();
    std::string all;
    for (auto piece = exporter->NextText(format); piece && *piece; piece = exporter->NextText(format)) all += **piece;
    return all;
  };
  std::istringstream csv(text("metrics", "csv"));
  std::string line;
  std::getline(csv, line);
  EXPECT_EQ(line, "sweep,cell,kind,architecture,size,seed,attempt,series,step,value");
  std::getline(csv, line);
  EXPECT_THAT(line, testing::MatchesRegex("s,c,pretrain,,,18446744073709551615,[0-9]+,loss,[0-9]+,3"));
  std::istringstream lines(text("metrics", "jsonl"));
  std::vector<common::Json> parsed;
  while (std::getline(lines, line)) parsed.push_back(common::Json::parse(line));
  EXPECT_EQ(parsed, rows("metrics"));
  EXPECT_EQ(common::Json::parse(text("cells", "jsonl")), rows("cells").at(0));
  auto cells_as_csv = std::move(Exporter::Start(reader.get(), "cells", "")).value();
  EXPECT_EQ(cells_as_csv->NextText("csv").error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(Exporter::Start(reader.get(), "cells", "nope").error().code, common::ErrorCode::kNotFound);
  EXPECT_EQ(Exporter::Start(reader.get(), "pictures", "s").error().code, common::ErrorCode::kInvalidArgument);
}

TEST_F(StoreTest, ImportedTablesStandBesideSweeps) {
  records::Record record;
  record.sweep = "theirs";
  record.cell = "ours-1B-s0";
  record.architecture = "ours";
  record.state = records::CellState::kDone;
  record.metrics = {{"validation_loss", 2.5}, {"parameters", std::numeric_limits<double>::infinity()}};
  const records::PackedTable packed = records::PackTable({record});
  auto store = OpenStore();
  store->Begin();
  PutSweepAndRun(*store);
  store->PutImported({"theirs", "runs.csv", "loss=l", 1, packed.data, packed.bytes}, 5);
  ASSERT_TRUE(store->Commit().ok());
  EXPECT_TRUE(store->HasImported("theirs"));
  EXPECT_FALSE(store->HasImported("s"));
  const fs::path file = folder_ / "allometry.db";
  const records::Table table = records::LoadSqlite(file, {"theirs"}).value();
  ASSERT_EQ(table.size(), 1u);
  EXPECT_EQ(table[0].metrics, record.metrics);
  EXPECT_EQ(table[0].Name(), "theirs/ours-1B-s0");
  EXPECT_EQ(records::LoadSqlite(file, {}).value().back().sweep, "theirs");
  EXPECT_THAT(records::LoadSqlite(file, {"their"}).error().message, testing::HasSubstr("did you mean 'theirs'"));
  EXPECT_EQ(records::LoadSweepSpec(file, "theirs").error().code, common::ErrorCode::kNotFound);
  EXPECT_TRUE(records::LoadSweepSpec(file, "s").ok());
  store->Begin();
  store->PutImported({"theirs", "runs.csv", "", 1, packed.data.substr(1), packed.bytes}, 6);
  ASSERT_TRUE(store->Commit().ok());
  EXPECT_EQ(records::LoadSqlite(file, {"theirs"}).error().code, common::ErrorCode::kDataLoss);
  store->Begin();
  store->DropImported("theirs");
  ASSERT_TRUE(store->Commit().ok());
  EXPECT_FALSE(store->HasImported("theirs"));
}

TEST_F(StoreTest, ABackupOfTheLiveDatabaseIsWhole) {
  auto store = OpenStore();
  store->Begin();
  PutSweepAndRun(*store);
  ASSERT_TRUE(store->Commit().ok());
  store->Begin();
  store->SetMeta("half", "done");  // not committed: not in the copy
  auto reader = std::move(Reader::Open(folder_ / "allometry.db")).value();
  const auto bytes = reader->Backup(folder_ / "copy.db");
  ASSERT_TRUE(bytes.ok()) << bytes.error().message;
  EXPECT_GT(*bytes, 0);
  EXPECT_EQ(reader->Backup(folder_ / "copy.db").error().code, common::ErrorCode::kAlreadyExists);
  auto copy = std::move(Store::Open(folder_ / "copy.db")).value();
  EXPECT_EQ(copy->Sweeps().size(), 1u);
  EXPECT_EQ(copy->Meta("half"), "");
}

}  // namespace
}  // namespace allometry::coordinator::store
