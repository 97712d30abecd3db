#include "records/curves.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "records/metric_chunk.h"
#include "records/sqlite_reading.h"

namespace allometry::records {
namespace {

// Adds the mean of points [begin, end) to `thinned`.
void AddRun(const Curve& curve, size_t begin, size_t end, Curve* thinned) {
  double sum = 0;
  int finite = 0;
  for (size_t i = begin; i < end; ++i) {
    if (!std::isfinite(curve.values[i])) continue;
    sum += curve.values[i];
    ++finite;
  }
  if (finite == 0) return;
  thinned->steps.push_back(curve.steps[end - 1]);
  thinned->values.push_back(sum / finite);
}

struct CurveCell {
  int64_t run_id = 0, accepted_attempt = 0;
  std::string name;
};

struct CurveAttempt {
  int64_t id = 0;
  int64_t last_step = 0;  // what came later was done again by the next attempt
};

class CurveReader {
 public:
  static common::Result<CurveReader> Prepare(sqlite3* handle) {
    ALLO_ASSIGN_OR_RETURN(Statement cells, Statement::Prepare(handle, R"sql(
      SELECT k.name, k.run_id, r.accepted_attempt FROM cells k JOIN runs r ON r.run_id = k.run_id
      WHERE k.sweep_id = ?1 AND k.kind = 'pretrain' AND k.wanted = 1 ORDER BY k.position, k.name)sql"));
    ALLO_ASSIGN_OR_RETURN(Statement attempts, Statement::Prepare(handle, R"sql(
      SELECT attempt_id, first_step FROM attempts WHERE run_id = ?1 AND (?2 = 0 OR generation <=
        (SELECT generation FROM attempts WHERE attempt_id = ?2)) ORDER BY generation DESC)sql"));
    ALLO_ASSIGN_OR_RETURN(Statement chunks, Statement::Prepare(handle, R"sql(
      SELECT points, data FROM metrics WHERE attempt_id = ?1 AND series = ?2 ORDER BY sequence)sql"));
    return CurveReader(handle, std::move(cells), std::move(attempts), std::move(chunks));
  }

  common::Result<std::vector<CurveCell>> CellsOf(int64_t sweep_id) {
    std::vector<CurveCell> cells;
    cells_.Reset();
    cells_.Bind(1, sweep_id);
    for (;;) {
      ALLO_ASSIGN_OR_RETURN(const bool row, cells_.Step());
      if (!row) return cells;
      cells.push_back({cells_.Int(1), cells_.Int(2), cells_.Text(0)});
    }
  }

  // The curves of one cell, empty ones too.
  common::Result<std::vector<Curve>> CurvesOf(const CurveCell& cell, const std::vector<std::string>& series) {
    ALLO_RETURN_IF_ERROR(BeginReading(handle_));
    auto curves = ReadCurves(cell, series);
    attempts_.Reset();
    chunks_.Reset();
    EndReading(handle_);
    return curves;
  }

 private:
  CurveReader(sqlite3* handle, Statement cells, Statement attempts, Statement chunks)
      : handle_(handle), cells_(std::move(cells)), attempts_(std::move(attempts)), chunks_(std::move(chunks)) {}

  common::Result<std::vector<Curve>> ReadCurves(const CurveCell& cell, const std::vector<std::string>& series) {
    ALLO_ASSIGN_OR_RETURN(const std::vector<CurveAttempt> attempts, AttemptsOf(cell));
    std::vector<Curve> curves;
    for (const std::string& name : series) {
      Curve curve{.cell = cell.name, .series = name};
      for (const CurveAttempt& attempt : attempts) ALLO_RETURN_IF_ERROR(AddPoints(attempt, &curve));
      curves.push_back(std::move(curve));
    }
    return curves;
  }

  common::Result<std::vector<CurveAttempt>> AttemptsOf(const CurveCell& cell) {
    std::vector<CurveAttempt> attempts;
    int64_t last_step = std::numeric_limits<int64_t>::max();
    attempts_.Reset();
    attempts_.Bind(1, cell.run_id);
    attempts_.Bind(2, cell.accepted_attempt);
    for (;;) {
      ALLO_ASSIGN_OR_RETURN(const bool row, attempts_.Step());
      if (!row) break;
      attempts.push_back({attempts_.Int(0), last_step});
      last_step = std::min(last_step, attempts_.Int(1));
    }
    std::ranges::reverse(attempts);
    return attempts;
  }

  common::Status AddPoints(const CurveAttempt& attempt, Curve* curve) {
    chunks_.Reset();
    chunks_.Bind(1, attempt.id);
    chunks_.Bind(2, curve->series);
    for (;;) {
      ALLO_ASSIGN_OR_RETURN(const bool row, chunks_.Step());
      if (!row) return common::Ok();
      ALLO_ASSIGN_OR_RETURN(const Points points, UnpackPoints(chunks_.Text(1), chunks_.Int(0)));
      for (size_t i = 0; i < points.steps.size() && points.steps[i] <= attempt.last_step; ++i) {
        curve->steps.push_back(points.steps[i]);
        curve->values.push_back(points.values[i]);
      }
    }
  }

  sqlite3* handle_;
  Statement cells_, attempts_, chunks_;
};

}  // namespace

Curve Thinned(const Curve& curve, size_t most) {
  const size_t points = curve.steps.size();
  if (most == 0 || points <= most) return curve;
  Curve thinned{.sweep = curve.sweep, .cell = curve.cell, .series = curve.series};
  size_t begin = 0;
  for (size_t run = 1; begin < points; ++run) {
    const double share = static_cast<double>(run) / static_cast<double>(most);
    const auto wanted = static_cast<size_t>(std::llround(static_cast<double>(points) * share * share));
    const size_t end = run >= most ? points : std::clamp(wanted, begin + 1, points);
    AddRun(curve, begin, end, &thinned);
    begin = end;
  }
  return thinned;
}

common::Result<std::vector<Curve>> LoadCurves(const std::filesystem::path& database,
                                              const std::vector<std::string>& sweeps,
                                              const std::vector<std::string>& series, size_t most) {
  ALLO_ASSIGN_OR_RETURN(const DatabaseHandle handle, OpenForReading(database));
  ALLO_ASSIGN_OR_RETURN(const std::vector<SweepRow> wanted, WantedSweeps(handle.get(), sweeps));
  ALLO_ASSIGN_OR_RETURN(CurveReader reader, CurveReader::Prepare(handle.get()));
  std::vector<Curve> curves;
  for (const SweepRow& sweep : wanted) {
    ALLO_ASSIGN_OR_RETURN(const std::vector<CurveCell> cells, reader.CellsOf(sweep.id));
    for (const CurveCell& cell : cells) {
      ALLO_ASSIGN_OR_RETURN(std::vector<Curve> found, reader.CurvesOf(cell, series));
      for (Curve& curve : found) {
        if (curve.steps.empty()) continue;
        curve.sweep = sweep.name;
        curves.push_back(Thinned(curve, most));
      }
    }
  }
  return curves;
}

}  // namespace allometry::records
