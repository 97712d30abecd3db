#include "cli/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "analysis/benchmarks.h"
#include "cli/names.h"
#include "cli/output.h"
#include "cli/time_left.h"
#include "common/json.h"
#include "common/table.h"
#include "records/scores.h"

namespace allometry::cli {
namespace {

using common::Json;

constexpr int kBarColumns = 12;
constexpr int kNumbersColumns = 57;  // the bar and what may stand right of it
constexpr int kFewestNameColumns = 12;
constexpr size_t kMostScores = 4;  // that are told one by one

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string PadRight(std::string text, size_t columns) {
  if (text.size() > columns) text = text.substr(0, columns - 1) + "~";
  return text + std::string(columns - text.size(), ' ');
}

std::string PadLeft(const std::string& text, size_t columns) {
  return text.size() >= columns ? text : std::string(columns - text.size(), ' ') + text;
}

// "glue 0.452, 8 tasks (5 at chance)": of many scores the averages that are there.
std::string AveragesText(const records::TaskScores& scores) {
  const analysis::BenchmarkAverages averages = analysis::AverageScores(scores);
  std::string text;
  const auto add = [&](const char* name, const analysis::Average& average) {
    if (average.value) text += std::string(name) + " " + Fixed(*average.value, 3) + ", ";
  };
  add("glue", averages.glue);
  add("superglue", averages.superglue);
  add("squad", averages.squad);
  add("D", averages.overall);
  const auto at_chance = std::ranges::count_if(scores, [](const auto& entry) { return entry.second.at_chance; });
  text += std::to_string(scores.size()) + " tasks";
  return at_chance == 0 ? text : text + " (" + std::to_string(at_chance) + " at chance)";
}

// "wordnet_pos 0.812, wordnet_wic 0.561 (at chance)".
std::string ScoresText(const records::TaskScores& scores) {
  if (scores.size() > kMostScores) return AveragesText(scores);
  std::string text;
  for (const auto& [task, score] : scores) {
    if (!std::isfinite(score.value)) continue;
    text += (text.empty() ? "" : ", ") + task + " " + Fixed(score.value, 3) + (score.at_chance ? " (at chance)" : "");
  }
  return text;
}

// "loss 5.213", or the scores.
std::string ResultText(const std::string& result_json) {
  const auto result = common::ParseJson(result_json, "result");
  if (!result || !result->is_object()) return "";
  std::string text = ScoresText(records::ScoresOfResult(result->value("scores", Json::array())));
  const Json metrics = result->value("metrics", Json::object());
  const auto number = [&](const char* name) { return metrics.contains(name) && metrics[name].is_number(); };
  if (text.empty() && number("validation_loss")) {
    text = "loss " + Fixed(metrics["validation_loss"].get<double>(), 3);
    if (number("text_loss") && number("unigram_loss"))
      text += ", text " + Fixed(metrics["text_loss"].get<double>(), 3) + " against unigram " +
              Fixed(metrics["unigram_loss"].get<double>(), 3);
  }
  return text;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string ShortName(const std::string& cell) { return cell.substr(cell.find('/') + 1); }

std::optional<std::string> Progress::Apply(const v1::CellStatus& cell) {
  const auto [place, fresh] = cells_.try_emplace(cell.cell(), cell);
  const v1::RunState before = fresh ? v1::RUN_STATE_UNSPECIFIED : place->second.state();
  const int64_t attempt_before = fresh ? 0 : place->second.attempt();
  place->second = cell;
  const std::string name = ShortName(cell.cell());
  const bool changed = cell.state() != before;
  switch (cell.state()) {
    case v1::RUN_STATE_RUNNING:
      if (!changed && cell.attempt() == attempt_before) return std::nullopt;
      return name + " runs" + (cell.worker().empty() ? "" : " on " + cell.worker()) +
             (cell.attempt() > 1 ? ", attempt " + std::to_string(cell.attempt()) : "");
    case v1::RUN_STATE_DONE: {
      if (!changed) return std::nullopt;
      const std::string result = ResultText(cell.result_json());
      return name + " done" + (result.empty() ? "" : ": " + result);
    }
    case v1::RUN_STATE_FAILED:
    case v1::RUN_STATE_DIVERGED:
      if (!changed) return std::nullopt;
      return name + " " + StateName(cell.state()) + ": " + FirstLine(cell.error());
    default:
      // Back from running: stopped, or crashed and tried again.
      if (before != v1::RUN_STATE_RUNNING) return std::nullopt;
      return name + " waits again" + (cell.error().empty() ? "" : ": " + FirstLine(cell.error()));
  }
}

std::string Progress::Totals() const {
  std::string text = std::to_string(sweep_.done()) + "/" + std::to_string(sweep_.cells()) + " done, " +
                     std::to_string(sweep_.running()) + " running, " + std::to_string(sweep_.pending()) + " waiting, " +
                     std::to_string(sweep_.failed() + sweep_.diverged()) + " failed";
  if (sweep_.blocked() > 0) text += ", " + std::to_string(sweep_.blocked()) + " blocked";
  return text;
}

bool Progress::Ended() const {
  return sweep_.state() == v1::SWEEP_STATE_FINISHED || sweep_.state() == v1::SWEEP_STATE_CANCELLED;
}

std::string Progress::Bar(const v1::CellStatus& cell, size_t name_columns) const {
  const int filled = static_cast<int>(std::floor(FractionDone(cell) * kBarColumns));
  const std::string steps = std::to_string(cell.step()) + "/" + std::to_string(cell.steps());
  const bool trains = cell.kind() != v1::RUN_KIND_PREPARE;
  std::string line = " [" + std::string(filled, '#') + std::string(kBarColumns - filled, '.') + "] " +
                     PadLeft(cell.steps() > 0 ? steps : "-", 9);
  if (trains && cell.step() > 0) line += " loss " + PadLeft(Fixed(cell.loss(), 3), 6);
  if (cell.tokens_per_second() > 0) line += PadLeft(common::FormatQuantity(cell.tokens_per_second()), 6) + " tok/s";
  if (const auto left = SecondsLeftAtPresentSpeed(cell)) line += PadLeft(FormatDuration(*left), 8);
  return PadRight(ShortName(cell.cell()), name_columns) + line;
}

size_t Progress::NameColumns(int width) const {
  size_t longest = 0;
  for (const auto& [name, cell] : cells_)
    if (cell.state() == v1::RUN_STATE_RUNNING) longest = std::max(longest, ShortName(name).size());
  return std::min(longest, static_cast<size_t>(std::max(kFewestNameColumns, width - kNumbersColumns)));
}

std::vector<std::string> Progress::Lines(double now_s, int width, int max_bars) const {
  std::vector<std::string> lines;
  const auto left = EstimateSecondsLeft(cells_);
  lines.push_back(sweep_.name() + ": " + Totals() + "; " + FormatDuration(now_s) +
                  (Ended() ? "" : ", left " + (left ? FormatDuration(*left) : "-")));
  const size_t name_columns = NameColumns(width);
  std::map<v1::WaitReason, int> waiting;
  int running = 0;
  for (const auto& [name, cell] : cells_) {
    if (cell.state() == v1::RUN_STATE_PENDING) ++waiting[cell.waiting()];
    if (cell.state() != v1::RUN_STATE_RUNNING || ++running > max_bars) continue;
    lines.push_back(Bar(cell, name_columns));
  }
  if (running > max_bars) lines.push_back("and " + std::to_string(running - max_bars) + " more running");
  for (const auto& [reason, count] : waiting)
    lines.push_back(std::to_string(count) + (count == 1 ? " waits " : " wait ") + ReasonText(reason));
  for (std::string& line : lines)
    if (line.size() > static_cast<size_t>(width)) line.resize(static_cast<size_t>(width));
  return lines;
}

}  // namespace allometry::cli
