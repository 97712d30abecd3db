#include "cli/tables.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>

#include "cli/names.h"
#include "cli/output.h"
#include "cli/progress.h"

namespace allometry::cli {
namespace {

using common::Column;
using common::ColumnKind;
using common::Table;
using common::TableValue;

// The four slopes of the study, in its order: of which measure against which.
struct Wanted {
  const char *x, *y, *title;
};
constexpr Wanted kSlopes[] = {{"flops", "upstream", "a(F,U)"},
                              {"flops", "downstream", "a(F,D)"},
                              {"parameters", "upstream", "a(P,U)"},
                              {"upstream", "downstream", "a(U,D)"}};

std::string Fixed(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3f", value);
  return text;
}

TableValue Low(const v1::Interval& interval) { return interval.known() ? TableValue(interval.low()) : TableValue(); }
TableValue High(const v1::Interval& interval) { return interval.known() ? TableValue(interval.high()) : TableValue(); }

std::string Flags(const v1::Slope& slope) {
  std::string text;
  for (const std::string& flag : slope.flags()) text += (text.empty() ? "" : ", ") + flag;
  return text;
}

// "0.541 ±0.032"; with "L" behind it when only the line interval is known.
std::string WithInterval(double value, const v1::Interval& seed, const v1::Interval& line) {
  const v1::Interval& interval = seed.known() ? seed : line;
  std::string text = Fixed(value);
  if (interval.known()) text += " ±" + Fixed((interval.high() - interval.low()) / 2) + (seed.known() ? "" : " L");
  return text;
}

std::string SlopeText(const v1::Slope& slope) {
  return slope.known() ? WithInterval(slope.alpha(), slope.seed_interval(), slope.line_interval()) : "-";
}

// "forward FLOPs", "non embedding parameters".
std::string Spoken(std::string convention, const char* what) {
  std::ranges::replace(convention, '_', ' ');
  return convention + " " + what;
}

const v1::Slope* Find(const v1::ArchitectureSlopes& slopes, const Wanted& wanted) {
  for (const v1::Slope& slope : slopes.slopes())
    if (slope.x() == wanted.x && slope.y() == wanted.y) return &slope;
  return nullptr;
}

void AddLeftOut(const google::protobuf::RepeatedPtrField<v1::LeftOut>& left_out, Table* table) {
  for (std::string& note : LeftOutNotes(left_out)) table->notes.push_back(std::move(note));
}

Table CompactSlopes(const v1::SlopesResponse& response) {
  Table table;
  table.name = "slopes";
  table.columns.push_back({"architecture", "architecture", "", ColumnKind::kText});
  for (const Wanted& wanted : kSlopes) table.columns.push_back({wanted.title, wanted.title, "", ColumnKind::kText});
  std::map<std::string, std::string> notes;  // in place of repeating the same reason for every architecture
  for (const v1::ArchitectureSlopes& architecture : response.architectures()) {
    std::vector<TableValue> row{architecture.architecture()};
    for (const Wanted& wanted : kSlopes) {
      const v1::Slope* slope = Find(architecture, wanted);
      row.emplace_back(slope ? SlopeText(*slope) : "-");
      if (!slope) continue;
      const std::string note = slope->refused().empty() ? Flags(*slope) : slope->refused();
      if (!note.empty()) notes[std::string(wanted.title) + ": " + note] += " " + architecture.architecture();
    }
    table.rows.push_back(std::move(row));
  }
  table.notes.push_back(
      "a(X,Y): slope of Y against X" + std::string(response.transform() == "loglog" ? ", both as logarithms" : "") +
      "; F " + Spoken(response.flops(), "FLOPs") + ", P " + Spoken(response.parameters(), "parameters") +
      ", U -validation loss, " + DownstreamText(response.downstream()) + "; ± seed interval (L: line interval)");
  if (!response.downstream().note().empty()) table.notes.push_back(response.downstream().note());
  for (const auto& [note, architectures] : notes) table.notes.push_back(note + " (" + architectures.substr(1) + ")");
  AddLeftOut(response.left_out(), &table);
  return table;
}

Table TidySlopes(const v1::SlopesResponse& response) {
  Table table;
  table.name = "slopes";
  table.columns = {{"architecture", "", "", ColumnKind::kText},
                   {"x", "", "", ColumnKind::kText},
                   {"y", "", "", ColumnKind::kText},
                   {"alpha", "", "", ColumnKind::kNumber, 4},
                   {"seed_low", "", "", ColumnKind::kNumber, 4},
                   {"seed_high", "", "", ColumnKind::kNumber, 4},
                   {"seed_degrees_of_freedom", "", "", ColumnKind::kNumber, 1},
                   {"line_low", "", "", ColumnKind::kNumber, 4},
                   {"line_high", "", "", ColumnKind::kNumber, 4},
                   {"sizes", "", "", ColumnKind::kInteger},
                   {"cells", "", "", ColumnKind::kInteger},
                   {"flags", "", "", ColumnKind::kText},
                   {"refused", "", "", ColumnKind::kText}};
  for (const v1::ArchitectureSlopes& architecture : response.architectures())
    for (const v1::Slope& slope : architecture.slopes())
      table.rows.push_back(
          {architecture.architecture(), slope.x(), slope.y(), slope.known() ? TableValue(slope.alpha()) : TableValue(),
           Low(slope.seed_interval()), High(slope.seed_interval()),
           slope.seed_interval().known() ? TableValue(slope.seed_interval().degrees_of_freedom()) : TableValue(),
           Low(slope.line_interval()), High(slope.line_interval()), int64_t{slope.sizes()}, int64_t{slope.cells()},
           Flags(slope), slope.refused()});
  AddLeftOut(response.left_out(), &table);
  return table;
}

}  // namespace

Table CellsTable(const std::vector<v1::CellStatus>& cells) {
  Table table;
  table.name = "cells";
  table.columns = {{"cell", "cell", "", ColumnKind::kText},          {"state", "state", "", ColumnKind::kText},
                   {"waiting", "waits for", "", ColumnKind::kText},  {"attempt", "try", "", ColumnKind::kInteger},
                   {"step", "step", "", ColumnKind::kInteger},       {"steps", "of", "", ColumnKind::kInteger},
                   {"loss", "loss", "nats", ColumnKind::kNumber, 3}, {"worker", "worker", "", ColumnKind::kText},
                   {"error", "error", "", ColumnKind::kText}};
  for (const v1::CellStatus& cell : cells)
    table.rows.push_back({cell.cell(), StateName(cell.state()), OrNone(ReasonName(cell.waiting())), cell.attempt(),
                          OrNone(cell.step()), OrNone(cell.steps()), OrNone(cell.loss()), OrNone(cell.worker()),
                          OrNone(cell.error().substr(0, cell.error().find('\n')))});
  return table;
}

Table SweepsTable(const std::vector<v1::Sweep>& sweeps) {
  Table table;
  table.name = "sweeps";
  table.columns = {{"sweep", "sweep", "", ColumnKind::kText},
                   {"state", "state", "", ColumnKind::kText},
                   {"cells", "cells", "", ColumnKind::kInteger},
                   {"done", "done", "", ColumnKind::kInteger},
                   {"running", "run", "", ColumnKind::kInteger},
                   {"pending", "wait", "", ColumnKind::kInteger},
                   {"failed", "failed", "", ColumnKind::kInteger},
                   {"diverged", "diverged", "", ColumnKind::kInteger},
                   {"blocked", "blocked", "", ColumnKind::kInteger},
                   {"flops_spent", "FLOPs", "", ColumnKind::kQuantity},
                   {"submitted", "submitted (UTC)", "", ColumnKind::kText}};
  for (const v1::Sweep& sweep : sweeps)
    table.rows.push_back({sweep.name(), SweepStateName(sweep.state()), sweep.cells(), sweep.done(), sweep.running(),
                          sweep.pending(), sweep.failed(), sweep.diverged(), sweep.blocked(), sweep.flops_spent(),
                          FormatTime(sweep.submitted_unix_ms())});
  return table;
}

Table WorkersTable(const std::vector<v1::WorkerInfo>& workers) {
  Table table;
  table.name = "workers";
  table.columns = {{"worker_id", "id", "", ColumnKind::kInteger},
                   {"name", "name", "", ColumnKind::kText},
                   {"host", "host", "", ColumnKind::kText},
                   {"state", "state", "", ColumnKind::kText},
                   {"slots", "slots", "", ColumnKind::kInteger},
                   {"busy", "busy", "", ColumnKind::kInteger},
                   {"memory_bytes", "memory", "bytes", ColumnKind::kQuantity},
                   {"devices", "devices", "", ColumnKind::kText},
                   {"faults", "out of service", "", ColumnKind::kText},
                   {"trainers", "trainers", "", ColumnKind::kText},
                   {"last_seen", "last seen (UTC)", "", ColumnKind::kText}};
  const auto joined = [](const auto& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : " ") + name;
    return text;
  };
  for (const v1::WorkerInfo& worker : workers)
    table.rows.push_back({worker.worker_id(), worker.name(), worker.host(), worker.state(), int64_t{worker.slots()},
                          int64_t{worker.busy()}, OrNone(worker.memory_bytes()), joined(worker.devices()),
                          joined(worker.faults()), joined(worker.trainers()), FormatTime(worker.last_seen_unix_ms())});
  return table;
}

Table PlanTable(const v1::PlanResponse& plan, bool existing_known) {
  Table table;
  table.name = "cells";
  table.columns = {{"cell", "cell", "", ColumnKind::kText},
                   {"parameters", "params", "", ColumnKind::kQuantity},
                   {"non_embedding_parameters", "non-emb", "", ColumnKind::kQuantity},
                   {"forward_flops", "FLOPs/ex", "", ColumnKind::kQuantity},
                   {"training_flops", "training", "", ColumnKind::kQuantity},
                   {"memory_bytes", "memory", "bytes", ColumnKind::kQuantity},
                   {"devices", "devices", "", ColumnKind::kText},
                   {"slots_per_gpu", "a GPU", "", ColumnKind::kInteger},
                   {"steps", "steps", "", ColumnKind::kInteger},
                   {"existing", "state", "", ColumnKind::kText}};
  for (const v1::PlannedCell& cell : plan.cells()) {
    const v1::Costs& costs = cell.costs();
    const std::string existing = StateName(cell.existing());
    table.rows.push_back({cell.cell(), OrNone(costs.parameters()), OrNone(costs.non_embedding_parameters()),
                          OrNone(costs.forward_flops()), OrNone(costs.training_flops()), OrNone(costs.memory_bytes()),
                          cell.devices() == 0 ? TableValue("auto") : TableValue(std::to_string(cell.devices())),
                          OrNone(cell.slots_per_gpu()), OrNone(costs.steps()),
                          !existing_known    ? TableValue()
                          : existing.empty() ? TableValue("new")
                                             : TableValue(existing)});
  }
  table.notes.push_back(std::to_string(plan.cells_size()) + " cells, " + common::FormatQuantity(plan.training_flops()) +
                        " training FLOPs left to spend");
  if (plan.expected_seconds() > 0)
    table.notes.push_back("expected " + FormatDuration(plan.expected_seconds()) + " on the workers connected now");
  if (!existing_known) table.notes.push_back("no coordinator asked: what exists already is not known");
  return table;
}

// Each worker once, with the number of its ranks where there are several: "one, two (3)".
std::string WorkersOfAttempt(const v1::AttemptInfo& attempt) {
  if (attempt.rank_workers().empty()) return attempt.worker();
  std::vector<std::string> named;
  std::string text;
  for (const std::string& worker : attempt.rank_workers()) {
    if (std::ranges::count(named, worker) > 0) continue;
    named.push_back(worker);
    const auto ranks = std::ranges::count(attempt.rank_workers(), worker);
    text += (text.empty() ? "" : ", ") + worker + (ranks > 1 ? " (" + std::to_string(ranks) + ")" : "");
  }
  return text;
}

Table AttemptsTable(const std::vector<v1::AttemptInfo>& attempts) {
  Table table;
  table.name = "attempts";
  table.columns = {
      {"attempt_id", "attempt", "", ColumnKind::kInteger}, {"worker", "worker", "", ColumnKind::kText},
      {"outcome", "outcome", "", ColumnKind::kText},       {"exit_code", "exit", "", ColumnKind::kInteger},
      {"signal", "signal", "", ColumnKind::kInteger},      {"first_step", "from", "", ColumnKind::kInteger},
      {"last_step", "to", "", ColumnKind::kInteger},       {"started", "started (UTC)", "", ColumnKind::kText},
      {"message", "message", "", ColumnKind::kText}};
  for (const v1::AttemptInfo& attempt : attempts)
    table.rows.push_back({attempt.attempt_id(), WorkersOfAttempt(attempt), attempt.outcome(),
                          int64_t{attempt.exit_code()}, OrNone(int64_t{attempt.signal()}), attempt.first_step(),
                          attempt.last_step(), FormatTime(attempt.started_unix_ms()),
                          OrNone(attempt.message().substr(0, attempt.message().find('\n')))});
  return table;
}

std::string DownstreamText(const v1::Downstream& downstream) {
  if (downstream.definition().empty() || downstream.definition() == "tasks") return "D mean score";
  std::string parts;
  for (const std::string& part : downstream.parts()) parts += (parts.empty() ? "" : ", ") + part;
  return "D mean of " + parts;
}

std::vector<std::string> LeftOutNotes(const google::protobuf::RepeatedPtrField<v1::LeftOut>& left_out) {
  std::map<std::string, int> reasons;
  for (const v1::LeftOut& left : left_out) ++reasons[left.reason()];
  std::vector<std::string> notes;
  for (const auto& [reason, count] : reasons)
    notes.push_back(std::to_string(count) + (count == 1 ? " cell" : " cells") + " left out: " + reason);
  return notes;
}

Table SlopesTable(const v1::SlopesResponse& slopes, bool tidy) {
  return tidy ? TidySlopes(slopes) : CompactSlopes(slopes);
}

Table TaskSlopesTable(const v1::SlopesResponse& slopes) {
  Table table;
  table.name = "tasks";
  table.columns.push_back({"task", "a(F,task)", "", ColumnKind::kText});
  std::vector<std::string> tasks;
  for (const v1::ArchitectureSlopes& architecture : slopes.architectures()) {
    table.columns.push_back({architecture.architecture(), architecture.architecture(), "", ColumnKind::kText});
    for (const v1::Slope& slope : architecture.slopes())
      if (slope.x() == "flops" && slope.y() != "upstream" && slope.y() != "downstream" &&
          std::ranges::count(tasks, slope.y()) == 0)
        tasks.push_back(slope.y());
  }
  for (const std::string& task : tasks) {
    table.rows.push_back({task});
    for (const v1::ArchitectureSlopes& architecture : slopes.architectures()) {
      const v1::Slope* slope = Find(architecture, {"flops", task.c_str(), ""});
      table.rows.back().emplace_back(slope ? SlopeText(*slope) : "-");
    }
  }
  return table;
}

Table ComparisonsTable(const v1::SlopesResponse& slopes) {
  Table table;
  table.name = "comparisons";
  table.columns = {{"axes", "", "", ColumnKind::kText},           {"first", "", "", ColumnKind::kText},
                   {"second", "", "", ColumnKind::kText},         {"difference", "", "", ColumnKind::kText},
                   {"p", "p (Holm)", "", ColumnKind::kNumber, 3}, {"verdict", "", "", ColumnKind::kText}};
  std::set<std::string> reasons;
  for (const v1::SlopeComparison& c : slopes.comparisons()) {
    const auto wanted = std::ranges::find_if(
        kSlopes, [&](const Wanted& one) { return std::string(one.x) == c.x() && std::string(one.y) == c.y(); });
    if (wanted == std::end(kSlopes)) continue;
    table.rows.push_back({wanted->title, c.first(), c.second(),
                          c.has_difference()
                              ? TableValue(WithInterval(c.difference(), c.seed_interval(), c.line_interval()))
                              : TableValue(),
                          c.has_p_seeds() ? TableValue(c.p_seeds()) : TableValue(), c.verdict()});
    if (!c.reason().empty()) reasons.insert("no verdict: " + c.reason());
  }
  table.notes.assign(reasons.begin(), reasons.end());
  return table;
}

Table RegionsTable(const v1::ParetoResponse& pareto) {
  Table table;
  table.name = "regions";
  table.columns = {{"low", "cost from", "", ColumnKind::kQuantity},
                   {"high", "to", "", ColumnKind::kQuantity},
                   {"cells", "cells", "", ColumnKind::kInteger},
                   {"best", "best", "", ColumnKind::kText},
                   {"probability", "prob.", "", ColumnKind::kNumber, 2},
                   {"second", "second", "", ColumnKind::kText},
                   {"second_probability", "prob.", "", ColumnKind::kNumber, 2}};
  const auto name = [](const v1::ParetoRegion& region, int i) {
    return i < region.best_size() ? TableValue(region.best(i).architecture()) : TableValue();
  };
  const auto probability = [](const v1::ParetoRegion& region, int i) {
    return i < region.best_size() ? TableValue(region.best(i).probability()) : TableValue();
  };
  for (const v1::ParetoRegion& region : pareto.regions())
    if (region.best_size() > 0)
      table.rows.push_back({region.low(), region.high(), int64_t{region.cells()}, name(region, 0),
                            probability(region, 0), name(region, 1), probability(region, 1)});
  return table;
}

Table ParetoTable(const v1::ParetoResponse& pareto, const v1::ParetoRequest& request) {
  const std::string &cost = request.cost(), &quality = request.quality();
  Table table;
  table.name = "points";
  table.columns = {{"cell", "cell", "", ColumnKind::kText},
                   {"architecture", "architecture", "", ColumnKind::kText},
                   {"size", "size", "", ColumnKind::kText},
                   {"cost", cost.empty() ? "flops" : cost, "", ColumnKind::kQuantity},
                   {"quality", quality.empty() ? "upstream" : quality, "", ColumnKind::kNumber, 4},
                   {"parameters", "params", "", ColumnKind::kQuantity},
                   {"seeds", "seeds", "", ColumnKind::kInteger},
                   {"on_frontier", "frontier", "", ColumnKind::kBoolean},
                   {"probability", "prob.", "", ColumnKind::kNumber, 2}};
  for (const std::string& more : request.more_costs()) table.columns.push_back({more, more, "", ColumnKind::kQuantity});
  for (const v1::ParetoPoint& point : pareto.points()) {
    table.rows.push_back({point.cell(), point.architecture(), point.size(), point.cost(), point.quality(),
                          OrNone(point.parameters()), int64_t{point.seeds()}, point.on_frontier(),
                          point.probability_known() ? TableValue(point.probability()) : TableValue()});
    for (const double cost : point.more_costs()) table.rows.back().emplace_back(cost);
  }
  if (pareto.has_hypervolume())
    table.notes.push_back("hypervolume " + Fixed(pareto.hypervolume()) +
                          ": decades of cost times quality, from the dearest and worst cells");
  if (quality == "downstream") {
    table.notes.push_back("quality: " + DownstreamText(pareto.downstream()));
    if (!pareto.downstream().note().empty()) table.notes.push_back(pareto.downstream().note());
  }
  AddLeftOut(pareto.left_out(), &table);
  return table;
}

}  // namespace allometry::cli
