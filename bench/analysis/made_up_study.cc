#include "bench/analysis/made_up_study.h"

#include <sqlite3.h>

#include <cmath>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "common/json.h"
#include "sql/migrations.h"

namespace allometry::bench {
namespace {

using common::Json;
using records::Record;

void AddMetrics(double parameters, double loss, Record* record) {
  const double tokens = 20 * parameters, flops = 6 * parameters * tokens;
  record->metrics = {{"active_parameters", parameters},
                     {"data_wait_fraction", 0.01},
                     {"device_seconds", flops / 1e12},
                     {"forward_flops", 2 * parameters * 512},
                     {"forward_flops_without_head", 1.9 * parameters * 512},
                     {"mtf_multiply_adds", 128 * parameters * 512},
                     {"non_embedding_parameters", 0.9 * parameters},
                     {"parameters", parameters},
                     {"peak_memory_bytes", 16 * parameters},
                     {"six_nd", flops},
                     {"steps", 1200},
                     {"swapped_inputs_loss", loss + 0.04},
                     {"text_loss", loss + 0.5},
                     {"tokens", tokens},
                     {"tokens_per_second", 1e12 / (6 * parameters)},
                     {"training_flops", flops},
                     {"unigram_loss", 6.06},
                     {"validation_loss", loss}};
}

void AddScores(int tasks, double loss, double noise, Record* record) {
  for (int task = 0; task < tasks; ++task) {
    const double value = 1 - 0.2 * loss + 0.02 * task + 0.005 * noise;
    record->finetune_state = records::CellState::kDone;
    record->scores["task" + std::to_string(task)] = {.value = value,
                                                     .standard_error = 0.01,
                                                     .majority = 0.25,
                                                     .examples = 2052,
                                                     .metrics = {{"accuracy", value}},
                                                     .standard_errors = {{"accuracy", 0.01}}};
  }
}

// What a coordinator keeps beside a run's result.
constexpr const char* kProvenance =
    R"({"allometry":"0.1.0","build_type":"Release","commit":"b5f1b10f1fab","compiler":"GNU 12.2.0","contract":1,)"
    R"("cpu":"Some CPU","cpu_capability":"AVX512","device":"cpu","host":"vm","libtorch":"2.11.0","threads":1,)"
    R"("worker":{"commit":"b5f1b10f1fab","compiler":"GNU 12.2.0","cores":2,"cpu":"Some CPU","device":"cpu","host":"vm",)"
    R"("kernel":"Linux 6.1","name":"local","version":"0.1.0"}})";

class Database {
 public:
  explicit Database(const std::filesystem::path& path) {
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) Fail();
    Run("PRAGMA journal_mode=WAL");
    Run("PRAGMA synchronous=OFF");
    for (const char* migration : sql::kMigrations) Run(migration);
    Run("PRAGMA user_version=" + std::to_string(sql::kMigrations.size()));
  }
  ~Database() { sqlite3_close(db_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void Run(const std::string& sql) {
    if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) Fail();
  }
  // One row; every value as text, which SQLite turns into what the column wants.
  void Insert(const std::string& sql, const std::vector<std::string>& values) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(db_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) Fail();
    for (size_t i = 0; i < values.size(); ++i)
      sqlite3_bind_text(statement, static_cast<int>(i) + 1, values[i].c_str(), -1, SQLITE_TRANSIENT);
    const int code = sqlite3_step(statement);
    sqlite3_finalize(statement);
    if (code != SQLITE_DONE) Fail();
  }

 private:
  [[noreturn]] void Fail() {
    throw std::runtime_error(std::string("cannot write the database: ") + sqlite3_errmsg(db_));
  }
  sqlite3* db_ = nullptr;
};

std::string CostsOf(const Record& record) {
  Json costs = Json::object();
  for (const char* name : {"active_parameters", "forward_flops", "forward_flops_without_head", "mtf_multiply_adds",
                           "non_embedding_parameters", "parameters", "six_nd", "steps", "tokens", "training_flops"})
    costs[name] = record.metrics.at(name);
  return costs.dump();
}

std::string ScoresOf(const Record& record) {
  Json scores = Json::array();
  for (const auto& [task, score] : record.scores)
    scores.push_back({{"task", task},
                      {"metric", "accuracy"},
                      {"value", score.value},
                      {"standard_error", *score.standard_error},
                      {"majority", *score.majority},
                      {"examples", score.examples},
                      {"at_chance", false},
                      {"unparsed", 0}});
  return scores.dump();
}

void InsertRun(Database* db, const std::string& id, const char* kind, const Record& record, const std::string& cell) {
  db->Insert(
      "INSERT INTO runs (run_id, identity, kind, trainer, run_json, costs_json, state, created_unix_ms, "
      "accepted_attempt) VALUES (?1, ?1, ?2, 'builtin', '{}', ?3, 'done', 0, ?1)",
      {id, kind, CostsOf(record)});
  db->Insert(
      "INSERT INTO attempts (attempt_id, run_id, generation, worker_id, sweep_id, outcome, provenance_json, "
      "started_unix_ms) VALUES (?1, ?1, 1, 1, 1, 'done', ?2, 0)",
      {id, kProvenance});
  db->Insert(
      "INSERT INTO cells (sweep_id, name, run_id, position, kind, architecture, size, seed) VALUES (1, ?1, ?2, ?2, ?3, "
      "?4, ?5, ?6)",
      {cell, id, kind, record.architecture, record.size, std::to_string(record.seed)});
}

}  // namespace

std::string StudyShape::Name() const {
  return std::to_string(architectures) + " architectures x " + std::to_string(sizes) + " sizes x " +
         std::to_string(seeds) + " seeds";
}

records::Table MadeUpTable(const StudyShape& shape) {
  std::mt19937_64 generator(1);
  std::normal_distribution<double> normal;
  records::Table table;
  for (int a = 0; a < shape.architectures; ++a) {
    const double scale = 30 * (1 + 0.3 * a / shape.architectures), exponent = 0.15 + 0.05 * (a % 7) / 7;
    for (int i = 0; i < shape.sizes; ++i) {
      const double parameters =
          std::round(1e6 * std::pow(1e4, static_cast<double>(i) / (shape.sizes - 1)) * (1 + 0.01 * a));
      for (int seed = 0; seed < shape.seeds; ++seed) {
        Record& record = table.emplace_back();
        record.sweep = "made-up";
        record.architecture = "architecture" + std::to_string(a);
        record.size = "size" + std::to_string(i);
        record.seed = static_cast<uint64_t>(seed);
        record.cell = record.architecture + "-" + record.size + "-s" + std::to_string(seed);
        record.state = records::CellState::kDone;
        record.device = "Some CPU (threads: 1)";
        const double noise = normal(generator), loss = 1.7 + scale / std::pow(parameters, exponent) + 0.01 * noise;
        AddMetrics(parameters, loss, &record);
        AddScores(shape.tasks, loss, normal(generator), &record);
      }
    }
  }
  return table;
}

void WriteDatabase(const records::Table& table, const std::filesystem::path& path) {
  Database db(path);
  db.Run("BEGIN");
  db.Run(
      "INSERT INTO workers (worker_id, worker_uuid, name, state, slots, registered_unix_ms, last_seen_unix_ms) "
      "VALUES (1, 'u', 'w', 'connected', 1, 0, 0)");
  db.Run(
      "INSERT INTO sweeps (sweep_id, name, state, policy, submitted_unix_ms) VALUES (1, 'made-up', 'finished', "
      "'fifo', 0)");
  int64_t id = 0;
  for (const Record& record : table) {
    const std::string pretraining = std::to_string(++id);
    InsertRun(&db, pretraining, "pretrain", record, record.cell);
    db.Insert("INSERT INTO results (run_id, attempt_id, event, metrics_json) VALUES (?1, ?1, ?1, ?2)",
              {pretraining, Json(record.metrics).dump()});
    if (record.scores.empty()) continue;
    const std::string finetuning = std::to_string(++id);
    InsertRun(&db, finetuning, "finetune", record, record.cell + "-ft");
    db.Insert("INSERT INTO run_parents (run_id, parent_id, input_name) VALUES (?1, ?2, 'model')",
              {finetuning, pretraining});
    db.Insert("INSERT INTO results (run_id, attempt_id, event, scores_json) VALUES (?1, ?1, ?1, ?2)",
              {finetuning, ScoresOf(record)});
  }
  db.Run("COMMIT");
}

}  // namespace allometry::bench
