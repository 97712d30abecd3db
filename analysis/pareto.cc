#include "analysis/pareto.h"

#include <algorithm>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/normal_distribution.hpp>
#include <boost/random/student_t_distribution.hpp>
#include <cmath>
#include <limits>
#include <numeric>

namespace allometry::analysis {
namespace {

double Mean(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0) / v.size(); }

// Cells by rising cost: then a cell is on the frontier exactly when it is the best of its cost and beats all cheaper ones.
std::vector<size_t> OrderByCost(const std::vector<ParetoCell>& cells) {
  std::vector<size_t> order(cells.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return cells[i].cost; });
  return order;
}

std::vector<bool> OnFrontier(const std::vector<ParetoCell>& cells, const std::vector<size_t>& order,
                             const std::vector<double>& quality) {
  std::vector<bool> on(cells.size(), false);
  double best_cheaper = -std::numeric_limits<double>::infinity();
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    double best_here = -std::numeric_limits<double>::infinity();
    for (end = begin; end < order.size() && cells[order[end]].cost == cells[order[begin]].cost; ++end)
      best_here = std::max(best_here, quality[order[end]]);
    for (size_t i = begin; i < end; ++i)
      on[order[i]] = quality[order[i]] == best_here && best_here > best_cheaper;
    best_cheaper = std::max(best_cheaper, best_here);
  }
  return on;
}

struct Spread {
  double sd = 0;
  double degrees = 0;  // infinity: a given sd
};

std::optional<Spread> PooledSpread(const std::vector<ParetoCell>& cells, const ParetoOptions& options) {
  double squares = 0, degrees = 0;
  for (const ParetoCell& cell : cells) {
    const double mean = Mean(cell.qualities);
    for (double q : cell.qualities) squares += (q - mean) * (q - mean);
    degrees += static_cast<double>(cell.qualities.size()) - 1;
  }
  if (degrees > 0) return Spread{std::sqrt(squares / degrees), degrees};
  if (options.seed_sd) return Spread{*options.seed_sd, std::numeric_limits<double>::infinity()};
  return std::nullopt;
}

// Standard draws; Boost's generators and distributions give the same numbers on every platform, std's do not.
class Draws {
 public:
  Draws(uint64_t seed, double degrees) : generator_(seed), normal_(0, 1), t_(std::isinf(degrees) ? 1 : degrees), use_t_(!std::isinf(degrees)) {}
  double Next() { return use_t_ ? t_(generator_) : normal_(generator_); }

 private:
  boost::random::mt19937_64 generator_;
  boost::random::normal_distribution<double> normal_;
  boost::random::student_t_distribution<double> t_;
  bool use_t_;
};

}  // namespace

std::vector<ParetoPoint> ParetoFrontier(const std::vector<ParetoCell>& cells, const ParetoOptions& options) {
  const std::vector<size_t> order = OrderByCost(cells);
  std::vector<double> quality;
  for (const ParetoCell& cell : cells) quality.push_back(Mean(cell.qualities));
  const std::vector<bool> on = OnFrontier(cells, order, quality);
  std::vector<ParetoPoint> points;
  for (size_t i = 0; i < cells.size(); ++i)
    points.push_back({cells[i].name, cells[i].cost, quality[i], static_cast<int64_t>(cells[i].qualities.size()), on[i], {}});

  const std::optional<Spread> spread = PooledSpread(cells, options);
  if (!spread || options.draws < 1) return points;
  Draws draws(options.seed, spread->degrees);
  std::vector<int> hits(cells.size(), 0);
  std::vector<double> drawn(cells.size());
  for (int draw = 0; draw < options.draws; ++draw) {
    for (size_t i = 0; i < cells.size(); ++i)
      drawn[i] = quality[i] + draws.Next() * spread->sd / std::sqrt(static_cast<double>(cells[i].qualities.size()));
    const std::vector<bool> drawn_on = OnFrontier(cells, order, drawn);
    for (size_t i = 0; i < cells.size(); ++i) hits[i] += drawn_on[i];
  }
  for (size_t i = 0; i < cells.size(); ++i) points[i].probability = static_cast<double>(hits[i]) / options.draws;
  return points;
}

}  // namespace allometry::analysis
