#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "sql/migrations.h"

namespace allometry::records {

// A database made from the program's own migrations, filled by hand.
class DatabaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("records_sqlite_" + std::to_string(::getpid()) + "_" +
                                                  ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "all?ometry#1%.db";  // characters that mean something in an address
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db_), SQLITE_OK);
    Run("PRAGMA journal_mode=WAL");
    for (const char* migration : sql::kMigrations) Run(migration);
    Run("PRAGMA user_version=" + std::to_string(sql::kMigrations.size()));
    Run("INSERT INTO workers (worker_id, worker_uuid, name, state, slots, registered_unix_ms, last_seen_unix_ms) "
        "VALUES (1, 'u', 'w', 'connected', 1, 0, 0)");
  }
  void TearDown() override {
    sqlite3_close(db_);
    std::filesystem::remove_all(folder_);
  }

  void Run(const std::string& sql) {
    char* message = nullptr;
    ASSERT_EQ(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message << " in " << sql;
  }
  void AddSweep(int id, const std::string& name, const std::string& state = "active", const std::string& tags = "{}") {
    Run("INSERT INTO sweeps (sweep_id, name, state, policy, submitted_unix_ms, tags_json) VALUES (" +
        std::to_string(id) + ", '" + name + "', '" + state + "', 'fifo', 0, '" + tags + "')");
  }
  void AddRun(int id, const std::string& kind, const std::string& state, const std::string& costs = "{}",
              const std::string& error = "") {
    const std::string number = std::to_string(id);
    Run("INSERT INTO runs (run_id, identity, kind, trainer, run_json, costs_json, state, error, created_unix_ms, "
        "accepted_attempt) VALUES (" +
        number + ", 'i" + number + "', '" + kind + "', 'builtin', '{}', '" + costs + "', '" + state + "', '" + error +
        "', 0, " + number + ")");
    Run("INSERT INTO attempts (attempt_id, run_id, generation, worker_id, sweep_id, outcome, provenance_json, "
        "started_unix_ms) VALUES (" +
        number + ", " + number +
        ", 1, 1, 1, 'done', "
        "'{\"cpu\": \"Some CPU\", \"threads\": 2, \"worker\": {\"cpu\": \"other\"}}', 0)");
  }
  void AddCell(int sweep, const std::string& name, int run, int position, const std::string& kind, int64_t seed = 1) {
    Run("INSERT INTO cells (sweep_id, name, run_id, position, kind, architecture, size, seed) VALUES (" +
        std::to_string(sweep) + ", '" + name + "', " + std::to_string(run) + ", " + std::to_string(position) + ", '" +
        kind + "', 'glu', 'base', " + std::to_string(seed) + ")");
  }
  void AddResult(int run, const std::string& metrics, const std::string& scores = "[]") {
    const std::string number = std::to_string(run);
    Run("INSERT INTO results (run_id, attempt_id, event, metrics_json, scores_json) VALUES (" + number + ", " + number +
        ", 1, '" + metrics + "', '" + scores + "')");
  }
  void AddParent(int run, int parent) {
    Run("INSERT INTO run_parents (run_id, parent_id, input_name) VALUES (" + std::to_string(run) + ", " +
        std::to_string(parent) + ", 'model')");
  }

  std::filesystem::path folder_, path_;
  sqlite3* db_ = nullptr;
};

}  // namespace allometry::records
