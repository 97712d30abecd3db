#include "analysis/suggest.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <boost/random/chi_squared_distribution.hpp>
#include <boost/random/mersenne_twister.hpp>
#include <cmath>
#include <map>
#include <numeric>
#include <ranges>
#include <set>

#include "analysis/allocation.h"
#include "analysis/mean.h"
#include "analysis/next_seeds.h"
#include "common/table.h"

namespace allometry::analysis {
namespace {

constexpr int kSeedFloor = 2;
constexpr int kMostPlannedSizes = 8;
constexpr int kMostPlannedSeeds = 1'000;
constexpr size_t kQuadraticRemovedFrom = 6;  // sizes, as in the line interval
constexpr int kNewSizeSeeds = 2;
constexpr int kWidthDraws = 1'000;

// E sqrt(chi^2_m / m): the mean of an estimated standard deviation over the true one.
double MeanOfEstimatedSd(double degrees) {
  return std::sqrt(2 / degrees) * std::exp(std::lgamma((degrees + 1) / 2) - std::lgamma(degrees / 2));
}

// Both the variance and its degrees of freedom are estimated, so this is the mean over draws of the sizes' variances;
// equal arguments give equal draws.
double ExpectedWelchHalfWidth(std::span<const double> terms, std::span<const int> seeds, double confidence) {
  boost::random::mt19937_64 generator(0);
  double sum_of_halves = 0;
  for (int draw = 0; draw < kWidthDraws; ++draw) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < terms.size(); ++i) {
      const double degrees = seeds[i] - 1;
      boost::random::chi_squared_distribution<double> chi_squared(degrees);
      const double term = terms[i] / seeds[i] * chi_squared(generator) / degrees;
      sum += term;
      squares += term * term / degrees;
    }
    if (squares > 0) sum_of_halves += TQuantile(confidence, sum * sum / squares) * std::sqrt(sum);
  }
  return sum_of_halves / kWidthDraws;
}

// A slope that can be narrowed, with where its sizes stand among the cells to be allocated.
struct Narrowed {
  const Slope* slope;
  size_t first_cell;
};

bool XOfSlopeVaries(const Slope& slope) { return slope.x == Axis::kUpstream || slope.x == Axis::kSeconds; }

std::string WhyNotNarrowed(const Slope& slope, const std::string& architecture,
                           const std::map<SizeKey, double>& costs) {
  if (!slope.estimate.alpha) return slope.estimate.refused;
  if (slope.estimate.seed_terms.empty())
    return "no replicate tells how far seeds differ: run a second seed of at least one size";
  for (const SizePoint& point : slope.points) {
    if (!costs.contains({architecture, point.size}))
      return "no training_flops was recorded at size " + point.size + ", so a seed there has no price";
  }
  return "";
}

class Suggester {
 public:
  Suggester(const SlopesResult& slopes, const Selection& selection, SuggestResult* out)
      : slopes_(slopes), costs_(TrainingFlopsOfSizes(selection)), out_(out) {}

  common::Status Run(const records::Table& table) {
    for (const ArchitectureSlopes& a : slopes_.architectures) {
      if (IsWanted(a.architecture)) AddSlope(a);
    }
    if (cells_.empty())
      return common::FailedPrecondition("there is no slope to narrow; of " + out_->slopes.front().architecture + ": " +
                                        out_->slopes.front().refused);
    const AllocationLimits limits{out_->request.budget_flops, kSeedFloor, out_->request.cap};
    const auto seeds = AllocateSeeds(cells_, limits);
    if (!seeds)
      return common::FailedPrecondition("the budget of " + common::FormatQuantity(limits.budget) +
                                        " FLOPs does not bring every size to two seeds, which takes " +
                                        common::FormatQuantity(CostOfFloor(cells_, limits)) +
                                        ": raise it, or name fewer architectures");
    AddCells(*seeds, table);
    AddHalfWidths(*seeds);
    AddNewSizes();
    AddPower();
    AddNotes(*seeds);
    return common::Ok();
  }

 private:
  bool IsWanted(const std::string& architecture) const {
    const std::vector<std::string>& wanted = out_->request.architectures;
    return wanted.empty() || std::ranges::count(wanted, architecture) > 0;
  }

  void AddSlope(const ArchitectureSlopes& a) {
    const Slope& slope = *FindSlope(a, out_->request.axes.x, out_->request.axes.y);
    SuggestedSlope shown{a.architecture, slope.estimate.alpha, {}, {}, WhyNotNarrowed(slope, a.architecture, costs_)};
    if (const auto& interval = slope.estimate.seed_interval) shown.half_now = (interval->high - interval->low) / 2;
    if (shown.refused.empty()) {
      narrowed_.push_back({&slope, cells_.size()});
      for (size_t i = 0; i < slope.points.size(); ++i) {
        cells_.push_back(
            {slope.estimate.seed_terms[i], costs_.at({a.architecture, slope.points[i].size}), slope.points[i].seeds});
        keys_.emplace_back(a.architecture, slope.points[i].size);
      }
    }
    out_->slopes.push_back(std::move(shown));
  }

  void AddCells(const std::vector<int>& seeds, const records::Table& table) {
    std::map<SizeKey, std::set<uint64_t>> taken = SeedsTaken(table);
    for (size_t c = 0; c < cells_.size(); ++c) {
      for (int n = cells_[c].has; n < seeds[c]; ++n) {
        out_->cells.push_back({keys_[c].first, keys_[c].second, NextSeed(&taken[keys_[c]]), cells_[c].cost});
        out_->flops += cells_[c].cost;
      }
    }
  }

  void AddHalfWidths(const std::vector<int>& seeds) {
    size_t next = 0;
    for (SuggestedSlope& shown : out_->slopes) {
      if (!shown.refused.empty()) continue;
      const Narrowed& narrowed = narrowed_[next++];
      const std::span<const int> of_slope =
          std::span(seeds).subspan(narrowed.first_cell, narrowed.slope->points.size());
      const bool unchanged = std::ranges::equal(of_slope, narrowed.slope->points, {}, {}, &SizePoint::seeds);
      shown.half_after = unchanged
                             ? shown.half_now
                             : ExpectedHalfWidth(narrowed.slope->estimate.seed_terms, of_slope,
                                                 out_->request.slopes.confidence, XOfSlopeVaries(*narrowed.slope));
    }
  }

  // One step beyond the largest and below the smallest size of each slope over a cost that can be chosen.
  void AddNewSizes() {
    for (const Narrowed& narrowed : narrowed_) {
      if (XOfSlopeVaries(*narrowed.slope) || !narrowed.slope->estimate.line_interval) continue;
      const std::string& architecture = keys_[narrowed.first_cell].first;
      std::vector<std::pair<double, double>> x_and_cost;
      for (size_t i = 0; i < narrowed.slope->points.size(); ++i)
        x_and_cost.emplace_back(narrowed.slope->points[i].x, cells_[narrowed.first_cell + i].cost);
      std::ranges::sort(x_and_cost);
      AddNewSize(architecture, *narrowed.slope, x_and_cost[x_and_cost.size() - 2], x_and_cost.back());
      AddNewSize(architecture, *narrowed.slope, x_and_cost[1], x_and_cost[0]);
    }
    const auto gain_per_flop = [](const SuggestedSize& s) { return (s.line_half_now - s.line_half_after) / s.flops; };
    std::ranges::stable_sort(out_->new_sizes, [&](const SuggestedSize& a, const SuggestedSize& b) {
      return std::pair(a.affordable, gain_per_flop(a)) > std::pair(b.affordable, gain_per_flop(b));
    });
  }

  void AddNewSize(const std::string& architecture, const Slope& slope, std::pair<double, double> inner,
                  std::pair<double, double> outer) {
    SuggestedSize size{.architecture = architecture, .x = 2 * outer.first - inner.first};
    size.flops = kNewSizeSeeds * outer.second * outer.second / inner.second;
    if (size.x == outer.first || !(size.flops > 0) || !std::isfinite(size.flops)) return;
    size.affordable = size.flops <= out_->request.budget_flops;
    std::vector<double> xs;
    for (const SizePoint& point : slope.points) xs.push_back(point.x);
    const double spread_now = SumOfSquares(xs);
    const double residual_sd = std::sqrt(slope.estimate.line_variance * spread_now);
    const Interval& line = *slope.estimate.line_interval;
    size.line_half_now = (line.high - line.low) / 2;
    xs.push_back(size.x);
    const double degrees = static_cast<double>(xs.size()) - (xs.size() >= kQuadraticRemovedFrom ? 3 : 2);
    size.line_half_after = TQuantile(out_->request.slopes.confidence, degrees) * MeanOfEstimatedSd(degrees) *
                           residual_sd / std::sqrt(SumOfSquares(xs));
    out_->new_sizes.push_back(std::move(size));
  }

  static double SumOfSquares(const std::vector<double>& xs) {
    const double mean = Mean(xs);
    return std::accumulate(xs.begin(), xs.end(), 0.0,
                           [&](double sum, double x) { return sum + (x - mean) * (x - mean); });
  }

  // The seed sd of y where x is exact: v = sum a_i^2 s^2 / n_i over the slopes, each with its degrees of freedom.
  void AddPower() {
    double squares = 0, degrees = 0, steps = 0;
    int slopes = 0;
    for (const Narrowed& narrowed : narrowed_) {
      if (XOfSlopeVaries(*narrowed.slope)) continue;
      std::vector<double> xs;
      for (const SizeSamples& size : narrowed.slope->samples) {
        xs.push_back(Mean(size.x));
        for (double y : size.y) squares += (y - Mean(size.y)) * (y - Mean(size.y));
        degrees += static_cast<double>(size.y.size()) - 1;
      }
      const auto [low, high] = std::ranges::minmax(xs);
      steps += (high - low) / (static_cast<double>(xs.size()) - 1);
      ++slopes;
    }
    if (degrees < 1) return;
    out_->seed_sd = std::sqrt(squares / degrees);
    if (!out_->request.delta) return;
    const double step = steps / slopes;
    for (int sizes = 2; sizes <= kMostPlannedSizes; ++sizes) out_->power.push_back(PowerAt(sizes, step));
  }

  PowerRow PowerAt(int sizes, double step) const {
    const double sxx = step * step * sizes * (sizes * sizes - 1) / 12.0;  // of equally spaced sizes
    PowerRow row{.sizes = sizes};
    const auto smallest = [&](int seeds) {
      return SmallestDifference(*out_->seed_sd, sxx, sizes, seeds, out_->request.slopes.confidence);
    };
    int low = 1, high = kMostPlannedSeeds;  // more seeds never show less
    row.smallest_difference = smallest(high);
    if (row.smallest_difference > *out_->request.delta) return row;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (smallest(middle) <= *out_->request.delta ? high : low) = middle;
    }
    row.seeds = high;
    row.smallest_difference = smallest(high);
    return row;
  }

  void AddNotes(const std::vector<int>& seeds) {
    std::vector<std::string>& notes = out_->notes;
    const bool more_paid = std::ranges::any_of(std::views::iota(size_t{0}, cells_.size()), [&](size_t c) {
      return seeds[c] < out_->request.cap && cells_[c].cost <= out_->request.budget_flops - out_->flops;
    });
    if (out_->cells.empty()) notes.push_back("the budget pays no further seed, or every size has as many as the cap");
    if (!out_->cells.empty() && !more_paid && AllAtCap(seeds))
      notes.push_back("every size is at the cap: the rest of the budget is better spent on a new size");
    notes.push_back("expected widths assume that seeds differ as much as those that have run");
    notes.push_back("FLOPs are those of pretraining: fine-tuning is not in them");
    if (!out_->new_sizes.empty())
      notes.push_back(
          "a new size changes what is estimated: the slope is then that of a longer grid. It is scored on the line "
          "interval, and its price is a guess from the two sizes next to it");
    if (out_->request.delta && out_->power.empty())
      notes.push_back("no power: it takes an exact x (F or P) and replicates");
  }

  bool AllAtCap(const std::vector<int>& seeds) const {
    return std::ranges::all_of(seeds, [&](int n) { return n >= out_->request.cap; });
  }

  const SlopesResult& slopes_;
  std::map<SizeKey, double> costs_;
  SuggestResult* out_;
  std::vector<Narrowed> narrowed_;
  std::vector<SeedCell> cells_;
  std::vector<SizeKey> keys_;  // of the cells
};

common::Status CheckSuggestRequest(const SuggestRequest& request) {
  if (!(request.budget_flops > 0) || !std::isfinite(request.budget_flops))
    return common::InvalidArgument("the budget must be a positive number of training FLOPs, as in 1e18");
  if (request.cap < kSeedFloor || request.cap > kMostPlannedSeeds)
    return common::InvalidArgument("the cap on seeds of a size must lie between 2 and 1,000");
  if (request.delta && !(*request.delta > 0 && std::isfinite(*request.delta)))
    return common::InvalidArgument("delta, a difference of two slopes, must be a positive number");
  return common::Ok();
}

}  // namespace

std::optional<double> ExpectedHalfWidth(std::span<const double> terms, std::span<const int> seeds, double confidence,
                                        bool x_varies) {
  double variance = 0, degrees = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    variance += terms[i] / seeds[i];
    degrees += seeds[i] - 1;
  }
  if (degrees < 1) return std::nullopt;
  if (!x_varies && std::ranges::all_of(seeds, [](int n) { return n >= 3; }))
    return ExpectedWelchHalfWidth(terms, seeds, confidence);
  return TQuantile(confidence, degrees) * MeanOfEstimatedSd(degrees) * std::sqrt(variance);
}

double SmallestDifference(double seed_sd, double sxx, int sizes, int seeds, double confidence, double power) {
  const double degrees = 2.0 * sizes * (seeds - 1);
  const double t_power = boost::math::quantile(boost::math::students_t(degrees), power);
  return (TQuantile(confidence, degrees) + t_power) * seed_sd * std::sqrt(2 / (seeds * sxx));
}

common::Result<SuggestResult> Suggest(const records::Table& table, const SuggestRequest& wanted) {
  SuggestResult result{.request = wanted};
  result.request.slopes.baseline.clear();
  const SlopesRequest& of_slopes = result.request.slopes;
  ALLO_RETURN_IF_ERROR(CheckSuggestRequest(wanted));
  ALLO_ASSIGN_OR_RETURN(const SlopesResult slopes, Slopes(table, of_slopes));
  ALLO_ASSIGN_OR_RETURN(const RequestedCells cells, FilteredCells(table, of_slopes.filter, of_slopes.exclude));
  ALLO_ASSIGN_OR_RETURN(const Selection selection, SelectCells(cells, of_slopes.tasks));
  ALLO_RETURN_IF_ERROR(CheckArchitectures(wanted.architectures, selection));
  ALLO_RETURN_IF_ERROR(Suggester(slopes, selection, &result).Run(table));
  result.downstream = slopes.downstream;
  result.left_out = LeftOutOfAxes(slopes.left_out, wanted.axes);
  return result;
}

}  // namespace allometry::analysis
