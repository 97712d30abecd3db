#include "analysis/allocation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace allometry::analysis {
namespace {

// How many seeds an exchange may move, by the number of cells: the work grows with its power.
constexpr size_t kMostCellsForTriplesOut = 8;
constexpr size_t kMostCellsForPairsIn = 16;
constexpr size_t kMostCellsForPairsOut = 40;
constexpr size_t kMostCellsForExchange = 2'000;
// Sums of costs are rounded: a budget that equals one of them must pay for it.
constexpr double kBudgetSlack = 1e-9;
// A gain this small against the variance is rounding.
constexpr double kLeastGain = 1e-12;

class Allocator {
 public:
  Allocator(std::span<const SeedCell> cells, const AllocationLimits& limits)
      : cells_(cells), budget_(limits.budget * (1 + kBudgetSlack)) {
    for (const SeedCell& cell : cells) {
      low_.push_back(std::max(limits.floor, cell.has));
      high_.push_back(std::max(limits.cap, low_.back()));
    }
  }

  std::optional<std::vector<int>> Run() const {
    if (Cost(low_) > budget_) return std::nullopt;
    std::vector<int> seeds = Proportional();
    Fill(&seeds);
    if (cells_.size() <= kMostCellsForExchange) {
      while (Exchange(&seeds)) {
      }
    }
    return seeds;
  }

 private:
  double Cost(const std::vector<int>& seeds) const {
    double sum = 0;
    for (size_t i = 0; i < cells_.size(); ++i) sum += cells_[i].cost * (seeds[i] - cells_[i].has);
    return sum;
  }

  // n_i = factor sqrt(weight_i / cost_i) between floor and cap, rounded down.
  std::vector<int> AtFactor(double factor) const {
    std::vector<int> seeds;
    for (size_t i = 0; i < cells_.size(); ++i) {
      const double n = factor * std::sqrt(cells_[i].weight / cells_[i].cost);
      seeds.push_back(static_cast<int>(std::clamp(std::floor(n), double(low_[i]), double(high_[i]))));
    }
    return seeds;
  }

  // The largest factor that the budget pays: the cost never falls with it.
  std::vector<int> Proportional() const {
    double low = 0, high = 0;
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (cells_[i].weight > 0) high = std::max(high, (high_[i] + 1) * std::sqrt(cells_[i].cost / cells_[i].weight));
    }
    if (Cost(AtFactor(high)) <= budget_) return AtFactor(high);
    for (int step = 0; step < 100; ++step) {
      const double middle = (low + high) / 2;
      (Cost(AtFactor(middle)) <= budget_ ? low : high) = middle;
    }
    return AtFactor(low);
  }

  // What one more seed of a cell takes off the variance.
  double Gain(size_t i, int n) const { return cells_[i].weight / (static_cast<double>(n) * (n + 1)); }

  void Fill(std::vector<int>* seeds) const {
    double left = budget_ - Cost(*seeds);
    for (;;) {
      std::optional<size_t> best;
      for (size_t i = 0; i < cells_.size(); ++i) {
        if ((*seeds)[i] >= high_[i] || cells_[i].cost > left || cells_[i].weight <= 0) continue;
        const auto per_cost = [&](size_t c) { return Gain(c, (*seeds)[c]) / cells_[c].cost; };
        if (!best || per_cost(i) > per_cost(*best)) best = i;
      }
      if (!best) return;
      ++(*seeds)[*best];
      left -= cells_[*best].cost;
    }
  }

  // The first exchange that lowers the variance.
  bool Exchange(std::vector<int>* seeds) const {
    const size_t count = cells_.size();
    if (count <= kMostCellsForPairsIn) return TakeOut(*seeds, count <= kMostCellsForTriplesOut ? 3 : 2, 0, 2, seeds);
    if (count <= kMostCellsForPairsOut) return TakeOut(*seeds, 2, 0, 1, seeds);
    for (size_t out = 0; out < count; ++out) {
      if ((*seeds)[out] > low_[out] && SwapOne(out, seeds)) return true;
    }
    return false;
  }

  // Up to `out` seeds out of the cells from `begin` on, up to `in` others in; true, with the result in `seeds`, if the
  // variance falls.
  bool TakeOut(const std::vector<int>& trial, int out, size_t begin, int in, std::vector<int>* seeds) const {
    if (PutIn(trial, in, 0, seeds)) return true;
    if (out == 0) return false;
    for (size_t i = begin; i < cells_.size(); ++i) {
      if (trial[i] <= low_[i]) continue;
      std::vector<int> less = trial;
      --less[i];
      if (TakeOut(less, out - 1, i, in, seeds)) return true;
    }
    return false;
  }

  bool PutIn(const std::vector<int>& trial, int in, size_t begin, std::vector<int>* seeds) const {
    for (size_t i = begin; i < cells_.size(); ++i) {
      if (trial[i] >= high_[i]) continue;
      std::vector<int> more = trial;
      ++more[i];
      if (Cost(more) > budget_) continue;
      if (FillIfBetter(more, seeds) || (in > 1 && PutIn(more, in - 1, i, seeds))) return true;
    }
    return false;
  }

  bool FillIfBetter(std::vector<int> trial, std::vector<int>* seeds) const {
    Fill(&trial);
    const double before = AllocatedVariance(cells_, *seeds);
    if (!(AllocatedVariance(cells_, trial) < before * (1 - kLeastGain))) return false;
    *seeds = std::move(trial);
    return true;
  }

  // One seed out for the one other seed that lowers the variance most; in constant time a candidate.
  bool SwapOne(size_t out, std::vector<int>* seeds) const {
    const double left = budget_ - Cost(*seeds) + cells_[out].cost;
    double best = Gain(out, (*seeds)[out] - 1) * (1 + kLeastGain);
    std::optional<size_t> added;
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (i == out || (*seeds)[i] >= high_[i] || cells_[i].cost > left) continue;
      if (Gain(i, (*seeds)[i]) <= best) continue;
      best = Gain(i, (*seeds)[i]);
      added = i;
    }
    if (!added) return false;
    --(*seeds)[out];
    ++(*seeds)[*added];
    Fill(seeds);
    return true;
  }

  std::span<const SeedCell> cells_;
  double budget_;
  std::vector<int> low_, high_;
};

}  // namespace

double CostOfFloor(std::span<const SeedCell> cells, const AllocationLimits& limits) {
  double sum = 0;
  for (const SeedCell& cell : cells) sum += cell.cost * std::max(0, limits.floor - cell.has);
  return sum;
}

double AllocatedVariance(std::span<const SeedCell> cells, std::span<const int> seeds) {
  double sum = 0;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (cells[i].weight > 0) sum += seeds[i] > 0 ? cells[i].weight / seeds[i] : std::numeric_limits<double>::infinity();
  }
  return sum;
}

std::optional<std::vector<int>> AllocateSeeds(std::span<const SeedCell> cells, const AllocationLimits& limits) {
  return Allocator(cells, limits).Run();
}

}  // namespace allometry::analysis
