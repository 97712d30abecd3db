#include "analysis/frontier.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "analysis/expected_draws.h"
#include "analysis/mean.h"

namespace allometry::analysis {
namespace {

// Cells by rising cost: a cell is on the frontier exactly when it is the best of its cost and beats all cheaper ones.
std::vector<size_t> OrderByCost(const std::vector<FrontierCell>& cells) {
  std::vector<size_t> order(cells.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return cells[i].cost; });
  return order;
}

std::vector<bool> OnFrontier(const std::vector<FrontierCell>& cells, const std::vector<size_t>& order,
                             const std::vector<double>& quality) {
  std::vector<bool> on(cells.size(), false);
  double best_cheaper = -std::numeric_limits<double>::infinity();
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    double best_here = -std::numeric_limits<double>::infinity();
    for (end = begin; end < order.size() && cells[order[end]].cost == cells[order[begin]].cost; ++end)
      best_here = std::max(best_here, quality[order[end]]);
    for (size_t i = begin; i < end; ++i) on[order[i]] = quality[order[i]] == best_here && best_here > best_cheaper;
    best_cheaper = std::max(best_cheaper, best_here);
  }
  return on;
}

// Counts how often each cell is on the frontier and takes each rank of its region.
class Tally {
 public:
  explicit Tally(const std::vector<FrontierCell>& cells) : cells_(cells), hits_(cells.size(), 0), ranks_(cells.size()) {
    for (size_t i = 0; i < cells.size(); ++i) regions_[cells[i].region].push_back(i);
    for (const auto& [region, members] : regions_) {
      for (size_t i : members) ranks_[i].assign(members.size(), 0);
    }
  }

  void Add(const std::vector<size_t>& order, const std::vector<double>& drawn) {
    const std::vector<bool> on = OnFrontier(cells_, order, drawn);
    for (size_t i = 0; i < cells_.size(); ++i) hits_[i] += on[i];
    for (auto& [region, members] : regions_) {
      std::ranges::sort(members, std::greater<>(), [&](size_t i) { return drawn[i]; });
      for (size_t rank = 0; rank < members.size(); ++rank) ++ranks_[members[rank]][rank];
    }
  }

  void Finish(int draws, std::vector<FrontierPoint>* points) const {
    for (size_t i = 0; i < cells_.size(); ++i) {
      (*points)[i].probability = static_cast<double>(hits_[i]) / draws;
      for (int count : ranks_[i]) (*points)[i].rank_probabilities.push_back(static_cast<double>(count) / draws);
    }
  }

 private:
  const std::vector<FrontierCell>& cells_;
  std::map<int, std::vector<size_t>> regions_;
  std::vector<int> hits_;
  std::vector<std::vector<int>> ranks_;
};

}  // namespace

Frontier FindFrontier(const std::vector<FrontierCell>& cells, const FrontierOptions& options) {
  const std::vector<size_t> order = OrderByCost(cells);
  std::vector<double> means;
  std::vector<int64_t> seeds;
  std::vector<const std::vector<double>*> qualities;
  for (const FrontierCell& cell : cells) {
    means.push_back(Mean(cell.qualities));
    seeds.push_back(static_cast<int64_t>(cell.qualities.size()));
    qualities.push_back(&cell.qualities);
  }
  const std::vector<bool> on = OnFrontier(cells, order, means);
  Frontier out;
  for (size_t i = 0; i < cells.size(); ++i)
    out.points.push_back({cells[i].name, cells[i].cost, means[i], seeds[i], on[i], {}, {}});
  const std::optional<SeedSpread> spread = PooledSpread(qualities, options.seed_sd);
  if (!spread) return out;
  out.seed_sd = spread->sd;
  out.degrees_of_freedom = spread->degrees;
  if (options.draws < 1 || spread->sd <= 0) return out;
  ExpectedDraws draws(options.seed, *spread);
  Tally tally(cells);
  std::vector<double> drawn(cells.size());
  for (int draw = 0; draw < options.draws; ++draw) {
    draws.Next(means, seeds, &drawn);
    tally.Add(order, drawn);
  }
  tally.Finish(options.draws, &out.points);
  return out;
}

}  // namespace allometry::analysis
