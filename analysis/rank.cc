#include "analysis/rank.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "analysis/expected_draws.h"
#include "analysis/mean.h"

namespace allometry::analysis {
namespace {

// Architectures times pairs of sizes times draws that are still a matter of seconds.
constexpr double kMostDrawnRanks = 2e8;

// One architecture at one size.
struct RankCell {
  size_t size = 0;  // index
  RankedArchitecture shown;
  std::vector<double> qualities;
};

struct RankCells {
  std::vector<std::string> sizes;  // in the order of the table
  std::vector<RankCell> cells;
  std::vector<std::vector<size_t>> of_size;  // indices into cells
};

void AddRankCell(const CellGroup& group, RankCell cell, std::map<std::string, size_t>* index, RankCells* out) {
  const auto [entry, is_new] = index->try_emplace(group.size, out->sizes.size());
  if (is_new) {
    out->sizes.push_back(group.size);
    out->of_size.emplace_back();
  }
  cell.size = entry->second;
  cell.shown.architecture = group.architecture;
  cell.shown.quality = Mean(cell.qualities);
  cell.shown.seeds = static_cast<int64_t>(cell.qualities.size());
  out->of_size[cell.size].push_back(out->cells.size());
  out->cells.push_back(std::move(cell));
}

RankCells CellsToRank(const Selection& selection, const RankRequest& request, LeftOutList* left_out) {
  RankCells out;
  std::map<std::string, size_t> index;
  const std::vector<std::string> chance_tasks = QualityTasks(request.quality, selection.downstream.parts);
  for (const CellGroup& group : selection.groups) {
    RankCell cell;
    for (const records::Record* record : group.cells) {
      const Measured quality = QualityValue(*record, request.quality, selection.downstream.parts);
      if (!quality.value) {
        left_out->Add(*record, request.quality, quality.missing);
        continue;
      }
      cell.qualities.push_back(*quality.value);
      cell.shown.at_chance |= IsAtChance(*record, chance_tasks);
    }
    if (!cell.qualities.empty()) AddRankCell(group, std::move(cell), &index, &out);
  }
  return out;
}

// The cells of two sizes, matched by architecture.
struct MatchedSizes {
  size_t first = 0, second = 0;
  std::vector<size_t> in_first, in_second;
};

std::vector<MatchedSizes> MatchSizes(const RankCells& cells) {
  std::vector<MatchedSizes> matches;
  for (size_t i = 0; i < cells.sizes.size(); ++i) {
    std::map<std::string, size_t> of_architecture;
    for (size_t c : cells.of_size[i]) of_architecture[cells.cells[c].shown.architecture] = c;
    for (size_t j = i + 1; j < cells.sizes.size(); ++j) {
      MatchedSizes match{i, j, {}, {}};
      for (size_t c : cells.of_size[j]) {
        const auto found = of_architecture.find(cells.cells[c].shown.architecture);
        if (found == of_architecture.end()) continue;
        match.in_first.push_back(found->second);
        match.in_second.push_back(c);
      }
      matches.push_back(std::move(match));
    }
  }
  return matches;
}

// Inversions of a sequence, by merging; sorts it.
int64_t CountInversions(std::span<double> values, std::vector<double>* scratch) {
  if (values.size() < 2) return 0;
  const size_t half = values.size() / 2;
  int64_t count = CountInversions(values.first(half), scratch) + CountInversions(values.subspan(half), scratch);
  scratch->clear();
  size_t left = 0, right = half;
  while (left < half || right < values.size()) {
    if (right == values.size() || (left < half && values[left] <= values[right])) {
      scratch->push_back(values[left++]);
    } else {
      scratch->push_back(values[right++]);
      count += static_cast<int64_t>(half - left);
    }
  }
  std::ranges::copy(*scratch, values.begin());
  return count;
}

// Kendall's tau of drawn qualities, which have no ties, in n log n.
class DrawnTau {
 public:
  explicit DrawnTau(const MatchedSizes& match) : match_(match), order_(match.in_first.size()) {
    std::iota(order_.begin(), order_.end(), size_t{0});
  }

  void Add(const std::vector<double>& drawn) {
    std::ranges::sort(order_, {}, [&](size_t i) { return drawn[match_.in_first[i]]; });
    values_.clear();
    for (size_t i : order_) values_.push_back(drawn[match_.in_second[i]]);
    const double n = static_cast<double>(order_.size());
    taus_.push_back(1 - 4 * static_cast<double>(CountInversions(values_, &scratch_)) / (n * (n - 1)));
  }

  // The value below which a share of the draws lies.
  double Percentile(double share) {
    std::ranges::sort(taus_);
    const double last = static_cast<double>(taus_.size()) - 1;
    return taus_[static_cast<size_t>(std::lround(share * last))];
  }

 private:
  const MatchedSizes& match_;
  std::vector<size_t> order_;
  std::vector<double> values_, scratch_, taus_;
};

// How often each cell took each rank of its size.
class RankTally {
 public:
  explicit RankTally(const RankCells& cells) : orders_(cells.of_size), counts_(cells.cells.size()) {
    for (const std::vector<size_t>& members : orders_) {
      for (size_t c : members) counts_[c].assign(members.size(), 0);
    }
  }

  void Add(const std::vector<double>& drawn) {
    for (std::vector<size_t>& members : orders_) {
      std::ranges::sort(members, std::greater<>(), [&](size_t c) { return drawn[c]; });
      for (size_t rank = 0; rank < members.size(); ++rank) ++counts_[members[rank]][rank];
    }
  }

  void Finish(const RankRequest& request, std::vector<RankCell>* cells) const {
    const double tail = (1 - request.confidence) / 2;
    for (size_t c = 0; c < counts_.size(); ++c) {
      RankedArchitecture& shown = (*cells)[c].shown;
      shown.probability_best = counts_[c].front() / static_cast<double>(request.draws);
      shown.rank_low = RankAt(counts_[c], tail * request.draws);
      shown.rank_high = RankAt(counts_[c], (1 - tail) * request.draws);
    }
  }

 private:
  // The first rank by which more than this many draws are counted.
  static int RankAt(const std::vector<int>& counts, double draws) {
    double below = 0;
    for (size_t rank = 0; rank < counts.size(); ++rank) {
      below += counts[rank];
      if (below > draws) return static_cast<int>(rank) + 1;
    }
    return static_cast<int>(counts.size());
  }

  std::vector<std::vector<size_t>> orders_;
  std::vector<std::vector<int>> counts_;
};

RankAgreement AgreementOfMeans(const RankCells& cells, const MatchedSizes& match) {
  RankAgreement out{.first = cells.sizes[match.first], .second = cells.sizes[match.second]};
  out.architectures = static_cast<int>(match.in_first.size());
  if (out.architectures < 2) {
    out.reason = "fewer than two architectures have both sizes";
    return out;
  }
  std::vector<double> first, second;
  for (size_t c : match.in_first) first.push_back(cells.cells[c].shown.quality);
  for (size_t c : match.in_second) second.push_back(cells.cells[c].shown.quality);
  out.tau = KendallTauB(first, second);
  if (!out.tau) out.reason = "all architectures of a size are equal";
  return out;
}

double DrawnRanks(const std::vector<MatchedSizes>& matches, int draws) {
  double work = 0;
  for (const MatchedSizes& match : matches) work += static_cast<double>(match.in_first.size()) * draws;
  return work;
}

// Fills the probabilities and the intervals.
void DrawRanks(const SeedSpread& spread, const std::vector<MatchedSizes>& matches, RankCells* cells,
               RankResult* result) {
  const RankRequest& request = result->request;
  std::vector<double> means, errors, drawn(cells->cells.size());
  for (const RankCell& cell : cells->cells) {
    means.push_back(cell.shown.quality);
    errors.push_back(1 / std::sqrt(static_cast<double>(cell.shown.seeds)));
  }
  const bool with_taus = DrawnRanks(matches, request.draws) <= kMostDrawnRanks;
  std::vector<std::pair<size_t, DrawnTau>> taus;  // by agreement
  for (size_t m = 0; m < matches.size(); ++m) {
    if (!result->agreements[m].tau) continue;
    if (with_taus) taus.emplace_back(m, DrawnTau(matches[m]));
    if (!with_taus) result->agreements[m].reason = "no interval: so many ranks that it takes fewer draws or a filter";
  }
  const ExpectedDraws draws(request.seed, spread);
  RankTally tally(*cells);
  for (int draw = 0; draw < request.draws; ++draw) {
    draws.Draw(static_cast<uint64_t>(draw), means, errors, drawn);
    tally.Add(drawn);
    for (auto& [m, tau] : taus) tau.Add(drawn);
  }
  tally.Finish(request, &cells->cells);
  for (auto& [m, tau] : taus) {
    result->agreements[m].low = tau.Percentile((1 - request.confidence) / 2);
    result->agreements[m].high = tau.Percentile((1 + request.confidence) / 2);
  }
}

std::vector<SizeRanking> RankingsOf(const RankCells& cells) {
  std::vector<SizeRanking> rankings;
  for (size_t s = 0; s < cells.sizes.size(); ++s) {
    SizeRanking ranking{cells.sizes[s], {}};
    for (size_t c : cells.of_size[s]) ranking.ranking.push_back(cells.cells[c].shown);
    std::ranges::stable_sort(ranking.ranking, std::greater<>(), &RankedArchitecture::quality);
    for (size_t i = 0; i < ranking.ranking.size(); ++i) {
      const bool tie = i > 0 && ranking.ranking[i].quality == ranking.ranking[i - 1].quality;
      ranking.ranking[i].rank = tie ? ranking.ranking[i - 1].rank : static_cast<int>(i) + 1;
    }
    rankings.push_back(std::move(ranking));
  }
  return rankings;
}

common::Status CheckRankRequest(const RankRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckDraws(request.draws, request.sd));
  if (request.confidence > 0.5 && request.confidence < 1) return common::Ok();
  return common::InvalidArgument("confidence must lie between 0.5 and 1, as in 0.95");
}

}  // namespace

std::optional<double> KendallTauB(std::span<const double> a, std::span<const double> b) {
  double score = 0, untied_a = 0, untied_b = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = i + 1; j < a.size(); ++j) {
      const int in_a = (a[i] < a[j]) - (a[i] > a[j]), in_b = (b[i] < b[j]) - (b[i] > b[j]);
      score += in_a * in_b;
      untied_a += in_a != 0;
      untied_b += in_b != 0;
    }
  }
  if (untied_a == 0 || untied_b == 0) return std::nullopt;
  return score / std::sqrt(untied_a * untied_b);
}

common::Result<RankResult> Rank(const records::Table& table, const RankRequest& wanted) {
  RankResult result{.request = wanted};
  RankRequest& request = result.request;
  if (request.quality.empty()) request.quality = "upstream";
  ALLO_RETURN_IF_ERROR(CheckRankRequest(request));
  ALLO_ASSIGN_OR_RETURN(const RequestedCells kept, FilteredCells(table, request.filter, request.exclude));
  ALLO_ASSIGN_OR_RETURN(Selection selection, SelectCells(kept, request.tasks));
  if (selection.groups.empty()) return NoCells(selection);
  ALLO_RETURN_IF_ERROR(CheckQuality(request.quality, selection));
  LeftOutList left_out(selection.left_out);
  RankCells cells = CellsToRank(selection, request, &left_out);
  selection.left_out = left_out.entries();
  if (cells.cells.empty()) return NoCells(selection);
  const std::vector<MatchedSizes> matches = MatchSizes(cells);
  for (const MatchedSizes& match : matches) result.agreements.push_back(AgreementOfMeans(cells, match));
  std::vector<const std::vector<double>*> qualities;
  for (const RankCell& cell : cells.cells) qualities.push_back(&cell.qualities);
  const std::optional<SeedSpread> spread = PooledSpread(qualities, request.sd);
  if (spread) {
    result.seed_sd = spread->sd;
    result.degrees_of_freedom = spread->degrees;
  }
  result.no_probability = WhyNoProbability(result.seed_sd, request.draws);
  if (result.no_probability.empty()) DrawRanks(*spread, matches, &cells, &result);
  result.sizes = RankingsOf(cells);
  result.downstream = selection.downstream;
  result.left_out = selection.left_out;
  return result;
}

}  // namespace allometry::analysis
