#include "coordinator/store/reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "common/json.h"
#include "common/table.h"
#include "records/metric_chunk.h"

namespace allometry::coordinator::store {
namespace {

using common::Json;

constexpr int64_t kCellsPerPage = 200;
constexpr size_t kTextBytes = size_t{1} << 20;

common::Status TakeError(Database& db) {
  const common::Status status = db.status();
  db.ClearError();
  return status;
}

struct FinishedCell {
  int64_t sweep_id = 0;
  int64_t run_id = 0;
  int64_t accepted_attempt = 0;
  std::string name;
  Json names;  // the columns that every row begins with
  Json costs, metrics, scores;
};

Json ParseOrEmpty(const std::string& text) {
  Json value = Json::parse(text, nullptr, false);
  return value.is_discarded() ? Json::object() : value;
}

FinishedCell FinishedCellOf(const Query& q) {
  FinishedCell cell;
  cell.sweep_id = q.Int(0);
  cell.name = q.Text(1);
  cell.run_id = q.Int(2);
  cell.accepted_attempt = q.Int(3);
  cell.names = {{"sweep", q.Text(4)},        {"cell", q.Text(1)},      {"kind", q.Text(5)},
                {"architecture", q.Text(6)}, {"size", q.Text(7)},      {"seed", static_cast<uint64_t>(q.Int(8))},
                {"state", q.Text(9)},        {"identity", q.Text(10)}, {"trainer", q.Text(11)},
                {"precision", q.Text(12)}};
  cell.costs = ParseOrEmpty(q.Text(13));
  cell.metrics = ParseOrEmpty(q.Text(14));
  cell.scores = ParseOrEmpty(q.Text(15));
  cell.names["error"] = q.Text(16);
  return cell;
}

std::vector<FinishedCell> CellsAfter(Database& db, int64_t sweep_id, int64_t event, int64_t last_sweep,
                                     const std::string& last_name, int64_t limit) {
  std::vector<FinishedCell> cells;
  Query q =
      db("SELECT c.sweep_id, c.name, c.run_id, r.accepted_attempt, s.name, c.kind, c.architecture, c.size, c.seed, "
         "r.state, "
         "r.identity, r.trainer, r.precision, r.costs_json, COALESCE(res.metrics_json, '{}'), "
         "COALESCE(res.scores_json, '[]'), "
         "r.error FROM cells c JOIN sweeps s ON s.sweep_id = c.sweep_id JOIN runs r ON r.run_id = c.run_id "
         "LEFT JOIN results res ON res.run_id = r.run_id "
         "WHERE c.wanted = 1 AND s.state <> 'expanding' AND (?1 = 0 OR c.sweep_id = ?1) AND (c.sweep_id, c.name) > "
         "(?2, ?3) "
         "AND (res.event <= ?4 OR r.state IN ('failed', 'diverged')) ORDER BY c.sweep_id, c.name LIMIT ?5",
         sweep_id, last_sweep, last_name, event, limit);
  while (q.Next()) cells.push_back(FinishedCellOf(q));
  return cells;
}

std::vector<std::string> CellRows(const FinishedCell& cell) {
  Json row = cell.names;
  row.update(cell.metrics);
  // What the coordinator computes goes before what a trainer claims; 0 stands for what it does not know.
  for (const auto& [name, cost] : cell.costs.items())
    if (!row.contains(name) || cost != 0) row[name] = cost;
  return {row.dump()};
}

// Objects inside of a score (`metrics`, `standard_errors`) become members of the row: "metrics.f1".
void AddScore(const Json& score, Json* row) {
  for (const auto& [key, value] : score.items()) {
    if (!value.is_object())
      (*row)[key] = value;
    else
      for (const auto& [name, member] : value.items()) (*row)[key + "." + name] = member;
  }
}

std::vector<std::string> ScoreRows(const FinishedCell& cell) {
  std::vector<std::string> rows;
  for (const Json& score : cell.scores) {
    if (!score.is_object()) continue;
    Json row = cell.names;
    AddScore(score, &row);
    rows.push_back(row.dump());
  }
  return rows;
}

struct LineageStep {
  int64_t attempt_id = 0;
  int64_t last_step = 0;  // what came later was overwritten by the next attempt
};

std::vector<LineageStep> LineageOf(Database& db, const FinishedCell& cell) {
  std::vector<LineageStep> lineage;
  int64_t last_step = std::numeric_limits<int64_t>::max();
  Query q =
      db("SELECT attempt_id, first_step FROM attempts WHERE run_id = ?1 AND generation <= "
         "(SELECT generation FROM attempts WHERE attempt_id = ?2) ORDER BY generation DESC",
         cell.run_id, cell.accepted_attempt);
  while (q.Next()) {
    lineage.push_back({q.Int(0), last_step});
    last_step = std::min(last_step, q.Int(1));
  }
  std::ranges::reverse(lineage);
  return lineage;
}

// Lines of metrics in one of the two formats. What a cell's lines begin with is made once: a database has millions.
class MetricLines {
 public:
  MetricLines(const FinishedCell& cell, bool csv, std::string* text) : csv_(csv), text_(text) {
    const char* fields[] = {"sweep", "cell", "kind", "architecture", "size"};
    for (const char* field : fields) {
      const std::string value = cell.names[field].get<std::string>();
      cell_ += csv ? common::CsvField(value) + ',' : Json(field).dump() + ':' + Json(value).dump() + ',';
    }
    cell_ += (csv ? "" : "\"seed\":") + cell.names["seed"].dump() + ',';
  }

  void BeginSeries(int64_t attempt_id, const std::string& series) {
    const std::string attempt = std::to_string(attempt_id);
    prefix_ = csv_ ? cell_ + attempt + ',' + common::CsvField(series) + ','
                   : '{' + cell_ + "\"attempt\":" + attempt + ",\"series\":" + Json(series).dump() + ",\"step\":";
  }

  void Add(int64_t step, double value) {
    text_->append(prefix_);
    Append(step);
    text_->append(csv_ ? "," : ",\"value\":");
    if (std::isfinite(value))
      Append(value);
    else
      text_->append(csv_ ? common::ShortestDouble(value) : common::JsonNumber(value).dump());
    text_->append(csv_ ? "\n" : "}\n");
  }

 private:
  template <typename Number>
  void Append(Number number) {
    char digits[32];
    text_->append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  }

  bool csv_;
  std::string* text_;
  std::string cell_, prefix_;
};

constexpr const char* kMetricsHeader = "sweep,cell,kind,architecture,size,seed,attempt,series,step,value\n";

void AddMetrics(Database& db, const FinishedCell& cell, bool csv, std::string* text) {
  MetricLines lines(cell, csv, text);
  for (const LineageStep& part : LineageOf(db, cell)) {
    Query q =
        db("SELECT series, points, data FROM metrics WHERE attempt_id = ? ORDER BY series, sequence", part.attempt_id);
    while (q.Next()) {
      const auto points = records::UnpackPoints(q.Text(2), q.Int(1));
      if (!points) continue;
      lines.BeginSeries(part.attempt_id, q.Text(0));
      for (size_t i = 0; i < points->steps.size() && points->steps[i] <= part.last_step; ++i)
        lines.Add(points->steps[i], points->values[i]);
    }
  }
}

std::vector<std::string> MetricRows(Database& db, const FinishedCell& cell) {
  std::string text;
  AddMetrics(db, cell, false, &text);
  std::vector<std::string> rows;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    rows.push_back(text.substr(begin, end - begin));
  return rows;
}

}  // namespace

common::Result<std::unique_ptr<Reader>> Reader::Open(const std::filesystem::path& database) {
  ALLO_ASSIGN_OR_RETURN(auto db, Database::Open(database, {.read_only = true}));
  return std::unique_ptr<Reader>(new Reader(std::move(db)));
}

common::Result<std::vector<std::string>> Reader::LogStreams(int64_t attempt_id) {
  std::vector<std::string> streams;
  for (;;) {  // from name to name by the index: what they hold is not read
    Query q = (*db_)("SELECT stream FROM logs WHERE attempt_id = ? AND stream > ? ORDER BY stream LIMIT 1", attempt_id,
                     streams.empty() ? std::string() : streams.back());
    if (!q.Next()) break;
    streams.push_back(q.Text(0));
  }
  ALLO_RETURN_IF_ERROR(TakeError(*db_));
  return streams;
}

common::Result<std::vector<LogPiece>> Reader::Logs(int64_t attempt_id, const std::string& stream, int64_t offset,
                                                   int64_t max_bytes) {
  std::vector<LogPiece> pieces;
  int64_t bytes = 0;
  {
    Query q = (*db_)(
        "SELECT offset, data FROM logs WHERE attempt_id = ? AND stream = ? AND offset + length(data) > ? ORDER BY "
        "offset",
        attempt_id, stream, offset);
    while (bytes < max_bytes && q.Next()) {
      LogPiece piece{stream, q.Int(0), q.Text(1)};
      if (piece.offset < offset) {
        piece.data.erase(0, offset - piece.offset);
        piece.offset = offset;
      }
      if (piece.data.empty()) continue;
      bytes += static_cast<int64_t>(piece.data.size());
      offset = piece.offset + static_cast<int64_t>(piece.data.size());
      pieces.push_back(std::move(piece));
    }
  }
  ALLO_RETURN_IF_ERROR(TakeError(*db_));
  return pieces;
}

common::Result<int64_t> Reader::LastEvent() {
  int64_t event = 0;
  if (Query q = (*db_)("SELECT COALESCE(MAX(event), 0) FROM events"); q.Next()) event = q.Int(0);
  ALLO_RETURN_IF_ERROR(TakeError(*db_));
  return event;
}

common::Result<int64_t> Reader::Backup(const std::filesystem::path& to) {
  std::error_code error;
  if (std::filesystem::exists(to, error))
    return common::AlreadyExists(to.string() + " exists already: name a new file");
  (*db_)("VACUUM INTO ?", to.string()).Run();
  const common::Status status = TakeError(*db_);
  if (!status) {
    std::filesystem::remove(to, error);
    return status.error();
  }
  const auto bytes = std::filesystem::file_size(to, error);
  if (error) return common::Unavailable("cannot read the size of " + to.string() + ": " + error.message());
  return static_cast<int64_t>(bytes);
}

common::Result<std::unique_ptr<Exporter>> Exporter::Start(Reader* reader, const std::string& what,
                                                          const std::string& sweep) {
  What kind = What::kCells;
  if (what == "scores")
    kind = What::kScores;
  else if (what == "metrics")
    kind = What::kMetrics;
  else if (!what.empty() && what != "cells")
    return common::InvalidArgument("unknown export '" + what + "': use cells, scores or metrics");
  int64_t sweep_id = 0;
  if (!sweep.empty()) {
    Query q = reader->db()("SELECT sweep_id FROM sweeps WHERE name = ? AND state <> 'expanding'", sweep);
    if (q.Next())
      sweep_id = q.Int(0);
    else if (reader->db().ok())
      return common::NotFound("no sweep '" + sweep + "'");
  }
  ALLO_RETURN_IF_ERROR(TakeError(reader->db()));
  ALLO_ASSIGN_OR_RETURN(const int64_t event, reader->LastEvent());
  return std::unique_ptr<Exporter>(new Exporter(reader, kind, sweep_id, event));
}

common::Result<std::optional<std::vector<std::string>>> Exporter::NextPage() {
  const int64_t limit = what_ == What::kMetrics ? 1 : kCellsPerPage;
  const auto cells = CellsAfter(reader_->db(), sweep_id_, event_, last_sweep_, last_name_, limit);
  std::vector<std::string> rows;
  for (const FinishedCell& cell : cells) {
    std::vector<std::string> more = what_ == What::kCells    ? CellRows(cell)
                                    : what_ == What::kScores ? ScoreRows(cell)
                                                             : MetricRows(reader_->db(), cell);
    std::ranges::move(more, std::back_inserter(rows));
    last_sweep_ = cell.sweep_id;
    last_name_ = cell.name;
  }
  ALLO_RETURN_IF_ERROR(TakeError(reader_->db()));
  if (cells.empty()) return std::optional<std::vector<std::string>>();
  return std::optional(std::move(rows));
}

common::Result<bool> Exporter::AddText(bool csv, std::string* text) {
  if (what_ != What::kMetrics) {
    ALLO_ASSIGN_OR_RETURN(const auto page, NextPage());
    if (!page) return false;
    for (const std::string& row : *page) *text += row + '\n';
    return true;
  }
  const auto cells = CellsAfter(reader_->db(), sweep_id_, event_, last_sweep_, last_name_, kCellsPerPage);
  for (const FinishedCell& cell : cells) {
    AddMetrics(reader_->db(), cell, csv, text);
    last_sweep_ = cell.sweep_id;
    last_name_ = cell.name;
    if (text->size() >= kTextBytes) break;
  }
  ALLO_RETURN_IF_ERROR(TakeError(reader_->db()));
  return !cells.empty();
}

common::Result<std::optional<std::string>> Exporter::NextText(const std::string& format) {
  const bool csv = format == "csv";
  if (!csv && format != "jsonl") return common::InvalidArgument("unknown format '" + format + "' of an export");
  if (csv && what_ != What::kMetrics)
    return common::InvalidArgument("cells and scores have columns that differ by row: ask for jsonl");
  std::string text = csv && !begun_ ? kMetricsHeader : "";
  begun_ = true;
  while (text.size() < kTextBytes) {
    ALLO_ASSIGN_OR_RETURN(const bool more, AddText(csv, &text));
    if (!more) break;
  }
  if (text.empty()) return std::optional<std::string>();
  return std::optional(std::move(text));
}

}  // namespace allometry::coordinator::store
