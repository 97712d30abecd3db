#include "analysis/frontier.h"

#include <algorithm>
#include <boost/random/chi_squared_distribution.hpp>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/normal_distribution.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

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

struct Spread {
  double sd = 0;
  double degrees = 0;  // 0: the sd was given, and is taken as known
};

std::optional<Spread> SpreadOf(const std::vector<FrontierCell>& cells, const FrontierOptions& options) {
  double squares = 0, degrees = 0;
  for (const FrontierCell& cell : cells) {
    const double mean = Mean(cell.qualities);
    for (double q : cell.qualities) squares += (q - mean) * (q - mean);
    degrees += static_cast<double>(cell.qualities.size()) - 1;
  }
  if (degrees > 0) return Spread{std::sqrt(squares / degrees), degrees};
  if (options.seed_sd) return Spread{*options.seed_sd, 0};
  return std::nullopt;
}

// Joint draws of expected qualities. Boost's generators and distributions give the same numbers on every platform;
// those of the standard library need not.
class Draws {
 public:
  Draws(uint64_t seed, Spread spread)
      : generator_(seed), normal_(0, 1), chi_squared_(spread.degrees > 0 ? spread.degrees : 1), spread_(spread) {}

  void Next(const std::vector<FrontierCell>& cells, const std::vector<double>& means, std::vector<double>* drawn) {
    const double sd =
        spread_.degrees > 0 ? spread_.sd * std::sqrt(spread_.degrees / chi_squared_(generator_)) : spread_.sd;
    for (size_t i = 0; i < cells.size(); ++i)
      (*drawn)[i] = means[i] + normal_(generator_) * sd / std::sqrt(static_cast<double>(cells[i].qualities.size()));
  }

 private:
  boost::random::mt19937_64 generator_;
  boost::random::normal_distribution<double> normal_;
  boost::random::chi_squared_distribution<double> chi_squared_;
  Spread spread_;
};

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
  for (const FrontierCell& cell : cells) means.push_back(Mean(cell.qualities));
  const std::vector<bool> on = OnFrontier(cells, order, means);
  Frontier out;
  for (size_t i = 0; i < cells.size(); ++i) {
    const auto seeds = static_cast<int64_t>(cells[i].qualities.size());
    out.points.push_back({cells[i].name, cells[i].cost, means[i], seeds, on[i], {}, {}});
  }
  const std::optional<Spread> spread = SpreadOf(cells, options);
  if (!spread) return out;
  out.seed_sd = spread->sd;
  out.degrees_of_freedom = spread->degrees;
  if (options.draws < 1 || spread->sd <= 0) return out;
  Draws draws(options.seed, *spread);
  Tally tally(cells);
  std::vector<double> drawn(cells.size());
  for (int draw = 0; draw < options.draws; ++draw) {
    draws.Next(cells, means, &drawn);
    tally.Add(order, drawn);
  }
  tally.Finish(options.draws, &out.points);
  return out;
}

}  // namespace allometry::analysis
