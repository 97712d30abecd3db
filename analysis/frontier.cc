#include "analysis/frontier.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>

#include "analysis/cost_order.h"
#include "analysis/expected_draws.h"
#include "analysis/mean.h"
#include "analysis/parallel.h"

namespace allometry::analysis {
namespace {

constexpr int kDrawsAtOnce = 128;   // what a thread takes from the others
constexpr double kNeverBeyond = 5;  // standard errors that no draw is taken to stray

// What is known of every cell's expected quality.
struct Expected {
  std::vector<double> means, errors;  // errors: 1 / sqrt(seeds)
};

Expected ExpectedOf(const std::vector<FrontierCell>& cells) {
  Expected out;
  for (const FrontierCell& cell : cells) {
    out.means.push_back(Mean(cell.qualities));
    out.errors.push_back(1 / std::sqrt(static_cast<double>(cell.qualities.size())));
  }
  return out;
}

std::map<int, std::vector<size_t>> RegionsOf(const std::vector<FrontierCell>& cells) {
  std::map<int, std::vector<size_t>> regions;
  for (size_t i = 0; i < cells.size(); ++i) regions[cells[i].region].push_back(i);
  return regions;
}

// The cells that some draw may put on the frontier or on a rank that counts, by rising first cost.
std::vector<size_t> InQuestion(const std::vector<FrontierCell>& cells, const CostOrder& order, const Expected& expected,
                               double sd) {
  std::vector<double> low, high;
  for (size_t i = 0; i < cells.size(); ++i) {
    low.push_back(expected.means[i] - kNeverBeyond * sd * expected.errors[i]);
    high.push_back(expected.means[i] + kNeverBeyond * sd * expected.errors[i]);
  }
  const std::vector<double> surely_beaten_below = order.BestThatCostsNoMore(low);
  std::map<int, double> last_rank;  // what ten cells of the region surely reach
  for (const auto& [region, members] : RegionsOf(cells)) {
    std::vector<double> lows;
    for (size_t i : members) lows.push_back(low[i]);
    const size_t last = std::min(kMostRanks, lows.size()) - 1;
    std::ranges::nth_element(lows, lows.begin() + static_cast<std::ptrdiff_t>(last), std::greater<>());
    last_rank[region] = lows[last];
  }
  std::vector<size_t> in_question;
  for (size_t i : order.cells()) {
    if (high[i] >= surely_beaten_below[i] || high[i] >= last_rank[cells[i].region]) in_question.push_back(i);
  }
  return in_question;
}

// The first ranks of a region, filled cell by cell.
class TopRanks {
 public:
  explicit TopRanks(size_t most) : most_(most) {}

  void Add(double quality, size_t cell) {
    if (filled_ == most_ && quality <= best_[most_ - 1].first) return;
    size_t at = filled_ < most_ ? filled_++ : most_ - 1;
    for (; at > 0 && best_[at - 1].first < quality; --at) best_[at] = best_[at - 1];
    best_[at] = {quality, cell};
  }
  size_t filled() const { return filled_; }
  size_t CellAt(size_t rank) const { return best_[rank].second; }

 private:
  size_t most_, filled_ = 0;
  std::array<std::pair<double, size_t>, kMostRanks> best_;
};

// Counts how often each cell is on the frontier and takes each of the first ranks of its region. The counts are whole
// numbers, so the order in which threads add theirs changes nothing.
class Tally {
 public:
  Tally(const std::vector<FrontierCell>& cells, const Expected& expected, std::vector<size_t> in_question)
      : cells_(std::move(in_question)),
        order_(CostsOf(cells, cells_)),
        counts_(cells_.size()),
        ranks_of_(cells.size()) {
    for (size_t i : cells_) {
      expected_.means.push_back(expected.means[i]);
      expected_.errors.push_back(expected.errors[i]);
    }
    std::map<int, size_t> index;
    for (const auto& [region, members] : RegionsOf(cells)) {
      index[region] = regions_.size();
      regions_.push_back({std::min(kMostRanks, members.size()), {}});
      for (size_t i : members) ranks_of_[i] = regions_.back().ranks;
    }
    // The dearest first: they tend to be the best, and what comes after them then takes one comparison.
    for (size_t c = cells_.size(); c-- > 0;) regions_[index[cells[cells_[c]].region]].members.push_back(c);
  }

  void AddDraws(const ExpectedDraws& draws, int first, int end) {
    std::vector<double> drawn(cells_.size()), scratch;
    std::vector<Counts> counts(cells_.size());
    for (int draw = first; draw < end; ++draw) {
      draws.Draw(static_cast<uint64_t>(draw), expected_.means, expected_.errors, drawn);
      order_.ForEachOnFrontier(drawn, &scratch, [&](size_t c) { ++counts[c].on_frontier; });
      for (const Region& region : regions_) {
        TopRanks top(region.ranks);
        for (size_t c : region.members) top.Add(drawn[c], c);
        for (size_t rank = 0; rank < top.filled(); ++rank) ++counts[top.CellAt(rank)].ranks[rank];
      }
    }
    const std::lock_guard lock(mutex_);
    for (size_t c = 0; c < counts.size(); ++c) counts_[c].Add(counts[c]);
  }

  void Finish(int draws, std::vector<FrontierPoint>* points) const {
    const auto share = [&](int count) { return static_cast<double>(count) / draws; };
    for (size_t i = 0; i < points->size(); ++i) {
      (*points)[i].probability = 0;
      (*points)[i].rank_probabilities.assign(ranks_of_[i], 0);
    }
    for (size_t c = 0; c < cells_.size(); ++c) {
      FrontierPoint& point = (*points)[cells_[c]];
      point.probability = share(counts_[c].on_frontier);
      for (size_t rank = 0; rank < point.rank_probabilities.size(); ++rank)
        point.rank_probabilities[rank] = share(counts_[c].ranks[rank]);
    }
  }

 private:
  struct Counts {
    int on_frontier = 0;
    std::array<int, kMostRanks> ranks{};

    void Add(const Counts& other) {
      on_frontier += other.on_frontier;
      for (size_t rank = 0; rank < kMostRanks; ++rank) ranks[rank] += other.ranks[rank];
    }
  };
  struct Region {
    size_t ranks = 0;
    std::vector<size_t> members;  // indices into cells_
  };

  static std::vector<std::vector<double>> CostsOf(const std::vector<FrontierCell>& cells,
                                                  const std::vector<size_t>& of) {
    std::vector<std::vector<double>> costs;
    for (size_t i : of) costs.push_back(cells[i].costs);
    return costs;
  }

  std::vector<size_t> cells_;  // those that are drawn
  CostOrder order_;            // of them
  Expected expected_;          // of them
  std::vector<Region> regions_;
  std::mutex mutex_;
  std::vector<Counts> counts_;    // of those that are drawn
  std::vector<size_t> ranks_of_;  // of all cells: how many ranks are told
};

}  // namespace

Frontier FindFrontier(const std::vector<FrontierCell>& cells, const FrontierOptions& options) {
  std::vector<std::vector<double>> costs;
  std::vector<const std::vector<double>*> qualities;
  for (const FrontierCell& cell : cells) {
    costs.push_back(cell.costs);
    qualities.push_back(&cell.qualities);
  }
  const CostOrder order(costs);
  const Expected expected = ExpectedOf(cells);
  Frontier out;
  for (size_t i = 0; i < cells.size(); ++i)
    out.points.push_back({.name = cells[i].name,
                          .quality = expected.means[i],
                          .seeds = static_cast<int64_t>(cells[i].qualities.size())});
  std::vector<double> scratch;
  order.ForEachOnFrontier(expected.means, &scratch, [&](size_t i) { out.points[i].on_frontier = true; });
  const std::optional<SeedSpread> spread = PooledSpread(qualities, options.seed_sd);
  if (!spread) return out;
  out.seed_sd = spread->sd;
  out.degrees_of_freedom = spread->degrees;
  if (options.draws < 1 || spread->sd <= 0) return out;
  const ExpectedDraws draws(options.seed, *spread);
  Tally tally(cells, expected, InQuestion(cells, order, expected, draws.LargestSd(options.draws)));
  ParallelFor(static_cast<size_t>((options.draws + kDrawsAtOnce - 1) / kDrawsAtOnce), options.threads, [&](size_t i) {
    const int first = static_cast<int>(i) * kDrawsAtOnce;
    tally.AddDraws(draws, first, std::min(options.draws, first + kDrawsAtOnce));
  });
  tally.Finish(options.draws, &out.points);
  return out;
}

}  // namespace allometry::analysis
