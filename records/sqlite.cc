#include "records/sqlite.h"

#include <limits>

#include "common/json.h"
#include "common/table.h"
#include "records/scores.h"
#include "records/sqlite_reading.h"

namespace allometry::records {
namespace {

using common::Json;
using common::Result;
using common::Status;
namespace fs = std::filesystem;

constexpr int64_t kCellsPerPage = 500;  // a few milliseconds

// A trainer's last words may hold any bytes; JSON and the wire take UTF-8 only.
std::string ValidUtf8(const std::string& bytes) {
  return Json::parse(Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

CellState StateOf(const std::string& run_state) {
  if (run_state == "done") return CellState::kDone;
  if (run_state == "failed") return CellState::kFailed;
  if (run_state == "diverged") return CellState::kDiverged;
  return CellState::kUnfinished;
}

// Numbers of a JSON object; non-finite ones are written as words.
void AddNumbers(const Json& object, bool positive_only, std::map<std::string, double>* metrics) {
  if (!object.is_object()) return;
  for (const auto& [name, value] : object.items()) {
    const std::optional<double> number = common::NumberFromJson(value);
    if (number && (!positive_only || *number > 0)) (*metrics)[name] = *number;
  }
}

std::string Field(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

// What times depend on: the GPU's model, or the CPU's with the number of threads.
std::string DeviceOf(const Json& provenance) {
  const std::string gpu = Field(provenance, "gpu");
  if (!gpu.empty()) return gpu;
  std::string cpu = Field(provenance, "cpu");
  if (cpu.empty() && provenance.is_object() && provenance.contains("worker")) cpu = Field(provenance["worker"], "cpu");
  if (provenance.is_object() && provenance.contains("threads") && provenance["threads"].is_number_integer())
    cpu += " (threads: " + provenance["threads"].dump() + ")";
  return cpu;
}

// Reads the pages of one database.
class Loader {
 public:
  static Result<Loader> Prepare(sqlite3* handle) {
    ALLO_ASSIGN_OR_RETURN(Statement cells, Statement::Prepare(handle, R"sql(
      SELECT k.position, p.cell, p.architecture, p.size, p.seed, p.tags_json, p.run_id, p.state, p.error, p.costs_json,
             p.metrics_json, a.provenance_json, json_extract(p.run_json, '$.model.shape')
      FROM cells k
      JOIN pretrain_cells p ON p.sweep_id = k.sweep_id AND p.cell = k.name
      JOIN runs r ON r.run_id = p.run_id
      LEFT JOIN attempts a ON a.attempt_id = r.accepted_attempt
      WHERE k.sweep_id = ?1 AND (k.position, k.name) > (?2, ?3) ORDER BY k.position, k.name LIMIT ?4)sql"));
    ALLO_ASSIGN_OR_RETURN(Statement finetunings, Statement::Prepare(handle, R"sql(
      SELECT state, error, scores_json FROM finetune_cells WHERE sweep_id = ?1 AND pretrain_run_id = ?2 ORDER BY cell)sql"));
    return Loader(handle, std::move(cells), std::move(finetunings));
  }

  Status LoadSweep(const SweepRow& sweep, Table* table) {
    int64_t position = std::numeric_limits<int64_t>::min();
    std::string name;
    for (;;) {
      const size_t before = table->size();
      if (Status status = LoadPage(sweep, &position, &name, table); !status) return status;
      if (table->size() - before < kCellsPerPage) return common::Ok();
    }
  }

 private:
  Loader(sqlite3* handle, Statement cells, Statement finetunings)
      : handle_(handle), cells_(std::move(cells)), finetunings_(std::move(finetunings)) {}

  // One transaction: a cell and its fine-tuning belong to the same moment.
  Status LoadPage(const SweepRow& sweep, int64_t* position, std::string* name, Table* table) {
    ALLO_RETURN_IF_ERROR(BeginReading(handle_));
    Status status = ReadCells(sweep, position, name, table);
    cells_.Reset();
    finetunings_.Reset();
    EndReading(handle_);
    return status;
  }

  Status ReadCells(const SweepRow& sweep, int64_t* position, std::string* name, Table* table) {
    cells_.Bind(1, sweep.id);
    cells_.Bind(2, *position);
    cells_.Bind(3, *name);
    cells_.Bind(4, kCellsPerPage);
    for (;;) {
      ALLO_ASSIGN_OR_RETURN(const bool row, cells_.Step());
      if (!row) return common::Ok();
      *position = cells_.Int(0);
      *name = cells_.Text(1);
      Record record = CellOf(sweep);
      ALLO_RETURN_IF_ERROR(AddFinetunings(sweep.id, cells_.Int(6), &record));
      table->push_back(std::move(record));
    }
  }

  Record CellOf(const SweepRow& sweep) const {
    Record record;
    record.sweep = sweep.name;
    record.cell = cells_.Text(1);
    record.architecture = cells_.Text(2);
    record.size = cells_.Text(3);
    record.seed = static_cast<uint64_t>(cells_.Int(4));
    record.tags = cells_.JsonAt(5).get<std::map<std::string, std::string>>();
    record.tags.insert(sweep.tags.begin(), sweep.tags.end());  // a cell's own tag is kept
    record.state = StateOf(cells_.Text(7));
    record.reason = record.state == CellState::kUnfinished ? cells_.Text(7) : ValidUtf8(cells_.Text(8));
    AddNumbers(cells_.JsonAt(10), false, &record.metrics);
    AddNumbers(cells_.JsonAt(9), true, &record.metrics);  // zero: not known
    AddNumbers(cells_.JsonAt(12), true, &record.metrics);
    record.device = DeviceOf(cells_.JsonAt(11));
    return record;
  }

  Status AddFinetunings(int64_t sweep_id, int64_t run_id, Record* record) {
    finetunings_.Reset();
    finetunings_.Bind(1, sweep_id);
    finetunings_.Bind(2, run_id);
    for (;;) {
      ALLO_ASSIGN_OR_RETURN(const bool row, finetunings_.Step());
      if (!row) return common::Ok();
      const CellState state = StateOf(finetunings_.Text(0));
      // Of several fine-tunings the one that is not done says why scores are missing.
      if (!record->finetune_state || state != CellState::kDone) {
        record->finetune_state = state;
        record->finetune_reason =
            state == CellState::kUnfinished ? finetunings_.Text(0) : ValidUtf8(finetunings_.Text(1));
      }
      for (const auto& [task, score] : ScoresOfResult(finetunings_.JsonAt(2))) record->scores[task] = score;
    }
  }

  sqlite3* handle_;
  Statement cells_, finetunings_;
};

}  // namespace

Result<Table> LoadSqlite(const fs::path& database, const std::vector<std::string>& sweeps) {
  ALLO_ASSIGN_OR_RETURN(const DatabaseHandle handle, OpenForReading(database));
  ALLO_ASSIGN_OR_RETURN(const std::vector<SweepRow> wanted, WantedSweeps(handle.get(), sweeps));
  ALLO_ASSIGN_OR_RETURN(Loader loader, Loader::Prepare(handle.get()));
  Table table;
  try {
    for (const SweepRow& sweep : wanted) ALLO_RETURN_IF_ERROR(loader.LoadSweep(sweep, &table));
  } catch (const Json::exception& error) {
    return common::DataLoss("'" + database.string() +
                            "' holds text that is not the JSON it should be: " + error.what());
  }
  return table;
}

}  // namespace allometry::records
