#include "records/sqlite.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "common/json.h"
#include "common/table.h"
#include "records/flat_numbers.h"
#include "records/packed_table.h"
#include "records/scores.h"
#include "records/sqlite_reading.h"

namespace allometry::records {
namespace {

using common::Json;
using common::Result;
using common::Status;
namespace fs = std::filesystem;

constexpr int64_t kCellsPerPage = 500;  // a few milliseconds
constexpr size_t kDevicesKept = 1000;

Result<Table> LoadImported(sqlite3* handle, const std::string& name) {
  ALLO_ASSIGN_OR_RETURN(Statement rows, Statement::Prepare(handle, "SELECT data, bytes FROM imported WHERE name = ?1"));
  rows.Bind(1, name);
  ALLO_ASSIGN_OR_RETURN(const bool row, rows.Step());
  if (!row) return common::NotFound("there is no import '" + name + "'");
  return UnpackTable(rows.Text(0), rows.Int(1));
}

// A trainer's last words may hold any bytes; JSON and the wire take UTF-8 only.
std::string ValidUtf8(const std::string& bytes) {
  if (bytes.empty()) return "";
  return Json::parse(Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

CellState StateOf(const std::string& run_state) {
  if (run_state == "done") return CellState::kDone;
  if (run_state == "failed") return CellState::kFailed;
  if (run_state == "diverged") return CellState::kDiverged;
  return CellState::kUnfinished;
}

void AddNumber(const std::string& name, double number, bool positive_only, std::map<std::string, double>* metrics) {
  if (!positive_only || number > 0) (*metrics)[name] = number;
}

// Numbers of a JSON object; non-finite ones are written as words.
void AddNumbers(const std::string& text, bool positive_only, std::map<std::string, double>* metrics) {
  if (text.empty()) return;
  if (const auto members = ReadFlatNumbers(text)) {
    for (const auto& [name, number] : *members) AddNumber(std::string(name), number, positive_only, metrics);
    return;
  }
  const Json object = Json::parse(text);
  if (!object.is_object()) return;
  for (const auto& [name, value] : object.items())
    if (const auto number = common::NumberFromJson(value)) AddNumber(name, *number, positive_only, metrics);
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
    // The view finetune_cells, begun at the parent: SQLite, which has no statistics of the tables, would walk over all
    // cells of the sweep for each.
    ALLO_ASSIGN_OR_RETURN(Statement finetunings, Statement::Prepare(handle, R"sql(
      SELECT r.state, r.error, res.scores_json
      FROM run_parents rp
      CROSS JOIN cells c INDEXED BY cells_by_run ON c.run_id = rp.run_id AND c.sweep_id = ?1 AND c.kind = 'finetune' AND c.wanted = 1
      CROSS JOIN runs r ON r.run_id = c.run_id
      LEFT JOIN results res ON res.run_id = c.run_id
      WHERE rp.parent_id = ?2 ORDER BY c.name)sql"));
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

  // The attempts of one worker have equal provenances, which are long.
  const std::string& DeviceAt(int column) {
    const std::string text = cells_.Text(column);
    if (devices_.size() > kDevicesKept) devices_.clear();
    const auto [device, is_new] = devices_.try_emplace(text);
    if (is_new) device->second = DeviceOf(text.empty() ? Json() : Json::parse(text));
    return device->second;
  }

  Record CellOf(const SweepRow& sweep) {
    Record record;
    record.sweep = sweep.name;
    record.cell = cells_.Text(1);
    record.architecture = cells_.Text(2);
    record.size = cells_.Text(3);
    record.seed = static_cast<uint64_t>(cells_.Int(4));
    if (const std::string tags = cells_.Text(5); tags != "{}")
      record.tags = Json::parse(tags).get<std::map<std::string, std::string>>();
    record.tags.insert(sweep.tags.begin(), sweep.tags.end());  // a cell's own tag is kept
    record.state = StateOf(cells_.Text(7));
    record.reason = record.state == CellState::kUnfinished ? cells_.Text(7) : ValidUtf8(cells_.Text(8));
    AddNumbers(cells_.Text(10), false, &record.metrics);
    AddNumbers(cells_.Text(9), true, &record.metrics);  // zero: not known
    AddNumbers(cells_.Text(12), true, &record.metrics);
    record.device = DeviceAt(11);
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
  std::unordered_map<std::string, std::string> devices_;  // by provenance
};

}  // namespace

Result<Table> LoadSqlite(const fs::path& database, const std::vector<std::string>& sweeps) {
  ALLO_ASSIGN_OR_RETURN(const DatabaseHandle handle, OpenForReading(database));
  ALLO_ASSIGN_OR_RETURN(const std::vector<SweepRow> wanted, WantedSweeps(handle.get(), sweeps));
  ALLO_ASSIGN_OR_RETURN(Loader loader, Loader::Prepare(handle.get()));
  Table table;
  try {
    for (const SweepRow& sweep : wanted) {
      if (!sweep.imported) {
        ALLO_RETURN_IF_ERROR(loader.LoadSweep(sweep, &table));
        continue;
      }
      ALLO_ASSIGN_OR_RETURN(Table imported, LoadImported(handle.get(), sweep.name));
      std::ranges::move(imported, std::back_inserter(table));
    }
  } catch (const Json::exception& error) {
    return common::DataLoss("'" + database.string() +
                            "' holds text that is not the JSON it should be: " + error.what());
  }
  return table;
}

Result<std::string> LoadSweepSpec(const fs::path& database, const std::string& sweep) {
  ALLO_ASSIGN_OR_RETURN(const DatabaseHandle handle, OpenForReading(database));
  ALLO_ASSIGN_OR_RETURN(Statement rows,
                        Statement::Prepare(handle.get(), "SELECT spec_json FROM sweeps WHERE name = ?1"));
  rows.Bind(1, sweep);
  ALLO_ASSIGN_OR_RETURN(const bool row, rows.Step());
  if (!row) return common::NotFound("'" + sweep + "' has no sweep file: it was imported, or does not exist");
  return rows.Text(0);
}

Result<std::string> DataVersion(const fs::path& database) {
  ALLO_ASSIGN_OR_RETURN(const DatabaseHandle handle, OpenForReading(database));
  ALLO_ASSIGN_OR_RETURN(Statement newest, Statement::Prepare(handle.get(), "SELECT max(event) FROM events"));
  ALLO_ASSIGN_OR_RETURN(const bool row, newest.Step());
  struct stat file = {};
  if (::stat(database.c_str(), &file) != 0) return common::NotFound("there is no database '" + database.string() + "'");
  ALLO_ASSIGN_OR_RETURN(Statement imports,
                        Statement::Prepare(handle.get(), "SELECT value FROM meta WHERE key = 'imports'"));
  ALLO_ASSIGN_OR_RETURN(const bool imported, imports.Step());
  return std::to_string(file.st_dev) + ":" + std::to_string(file.st_ino) + ":" +
         std::to_string(row ? newest.Int(0) : 0) + ":" + (imported ? imports.Text(0) : "0");
}

}  // namespace allometry::records
