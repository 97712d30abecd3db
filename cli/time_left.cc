#include "cli/time_left.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace allometry::cli {
namespace {

constexpr double kPriorExponent = 0.6;
// The prior counts as much as two models of one architecture whose FLOPs lie e apart.
constexpr double kPriorWeight = 0.5;

// From start to end; of a running cell what its present speed makes of it.
std::optional<double> Duration(const v1::CellStatus& cell) {
  if (cell.state() == v1::RUN_STATE_RUNNING && cell.tokens_per_second() > 0 && cell.costs().tokens() > 0)
    return cell.costs().tokens() / cell.tokens_per_second();
  if (cell.state() != v1::RUN_STATE_DONE || cell.attempt() > 1) return std::nullopt;
  const double seconds = static_cast<double>(cell.finished_unix_ms() - cell.started_unix_ms()) / 1000;
  return cell.started_unix_ms() > 0 && seconds > 0 ? std::optional(seconds) : std::nullopt;
}

double Steps(const v1::CellStatus& cell) { return static_cast<double>(std::max<int64_t>(1, cell.steps())); }

bool HasCosts(const v1::CellStatus& cell) { return cell.costs().training_flops() > 0; }

// Logarithm of a step's FLOPs; cells without costs all count as equal.
double LogFlops(const v1::CellStatus& cell) {
  return HasCosts(cell) ? std::log(cell.costs().training_flops() / Steps(cell)) : 0;
}

// Cells of about one c. An architecture's that was not yet seen are judged by their kind, and a kind's by all.
struct Group {
  int cells = 0;
  double log_flops = 0, log_seconds = 0;  // of a step, means
  double products = 0, squares = 0;       // sums around the means

  void Add(double x, double y) {
    ++cells;
    const double dx = x - log_flops, dy = y - log_seconds;
    log_flops += dx / cells;
    log_seconds += dy / cells;
    products += dx * (y - log_seconds);
    squares += dx * (x - log_flops);
  }
};

class StepTimes {
 public:
  explicit StepTimes(const std::map<std::string, v1::CellStatus>& cells) {
    for (const auto& [name, cell] : cells)
      if (const auto seconds = Duration(cell)) Add(cell, std::log(*seconds / Steps(cell)));
    double products = kPriorWeight * kPriorExponent, squares = kPriorWeight;
    for (const auto& [key, group] : alike_) {
      products += group.products;
      squares += group.squares;
    }
    exponent_ = std::max(0.0, products / squares);
  }

  // Seconds of the whole cell.
  std::optional<double> Of(const v1::CellStatus& cell) const {
    const Group* group = GroupOf(cell);
    if (group == nullptr) return std::nullopt;
    return Steps(cell) * std::exp(group->log_seconds + exponent_ * (LogFlops(cell) - group->log_flops));
  }

 private:
  using Alike = std::pair<v1::RunKind, std::string>;

  void Add(const v1::CellStatus& cell, double log_seconds) {
    const double log_flops = LogFlops(cell);
    alike_[{cell.kind(), cell.architecture()}].Add(log_flops, log_seconds);
    kinds_[cell.kind()].Add(log_flops, log_seconds);
    if (HasCosts(cell)) all_.Add(log_flops, log_seconds);
  }

  const Group* GroupOf(const v1::CellStatus& cell) const {
    if (const auto it = alike_.find({cell.kind(), cell.architecture()}); it != alike_.end()) return &it->second;
    if (const auto it = kinds_.find(cell.kind()); it != kinds_.end()) return &it->second;
    return HasCosts(cell) && all_.cells > 0 ? &all_ : nullptr;
  }

  std::map<Alike, Group> alike_;
  std::map<v1::RunKind, Group> kinds_;
  Group all_;
  double exponent_ = kPriorExponent;
};

}  // namespace

double FractionDone(const v1::CellStatus& cell) {
  if (cell.steps() <= 0) return 0;
  return std::clamp(static_cast<double>(cell.step()) / static_cast<double>(cell.steps()), 0.0, 1.0);
}

std::optional<double> SecondsLeftAtPresentSpeed(const v1::CellStatus& cell) {
  if (cell.tokens_per_second() <= 0 || cell.costs().tokens() <= 0 || cell.steps() <= 0) return std::nullopt;
  return cell.costs().tokens() * (1 - FractionDone(cell)) / cell.tokens_per_second();
}

std::optional<double> EstimateSecondsLeft(const std::map<std::string, v1::CellStatus>& cells) {
  const StepTimes times(cells);
  double sum = 0, longest = 0;
  int running = 0;
  bool known = false;
  for (const auto& [name, cell] : cells) {
    const bool runs = cell.state() == v1::RUN_STATE_RUNNING;
    if (!runs && cell.state() != v1::RUN_STATE_PENDING) continue;
    running += runs;
    const auto whole = times.Of(cell);
    if (!whole) continue;
    known = true;
    const double left = *whole * (1 - FractionDone(cell));
    sum += left;
    longest = std::max(longest, left);
  }
  if (!known || running == 0) return std::nullopt;
  return std::max(longest, sum / running);
}

}  // namespace allometry::cli
