#include "analysis/law_suggest.h"

#include <Eigen/Dense>
#include <algorithm>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/normal_distribution.hpp>
#include <cmath>
#include <limits>
#include <map>

#include "analysis/json_parts.h"
#include "analysis/mean.h"
#include "analysis/next_seeds.h"
#include "analysis/parallel.h"
#include "common/table.h"

namespace allometry::analysis {
namespace {

using common::Json;
using common::Result;

constexpr int kLowestCap = 2;
constexpr int kHighestCap = 1'000;
constexpr int kSeedsOfNewSize = 2;
constexpr double kRelativeStep = 1e-6;  // of numerical derivatives

// One size of one law: its runs' mean, how many have run, what one more costs.
struct LawSize {
  std::string size;
  LawPoint point;
  int seeds = 0;
  double cost = 0;
};

// A law that can be narrowed.
struct FittedLaw {
  std::string architecture;
  LawForm form = LawForm::kCompute;
  std::vector<double> parameters;
  std::vector<size_t> exponents;  // indices of the parameters to narrow
  double noise = 0;               // sd of ln L between seeds
  std::vector<LawSize> sizes;
};

std::vector<size_t> ExponentsOf(LawForm form) {
  std::vector<size_t> indices;
  const std::vector<std::string>& names = LawParameterNames(form);
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == "alpha" || names[i] == "beta") indices.push_back(i);
  return indices;
}

double LogLoss(const FittedLaw& law, const std::vector<double>& parameters, const LawPoint& point) {
  return std::log(EvaluateLaw(law.form, parameters, point.x, point.tokens));
}

// Of ln L by the logarithm of each parameter, so that the matrix is of one scale.
Eigen::VectorXd Gradient(const FittedLaw& law, const LawPoint& point) {
  Eigen::VectorXd gradient(static_cast<Eigen::Index>(law.parameters.size()));
  for (size_t i = 0; i < law.parameters.size(); ++i) {
    std::vector<double> up = law.parameters, down = law.parameters;
    up[i] *= 1 + kRelativeStep, down[i] *= 1 - kRelativeStep;
    gradient(static_cast<Eigen::Index>(i)) =
        (LogLoss(law, up, point) - LogLoss(law, down, point)) / (2 * kRelativeStep);
  }
  return gradient;
}

// The sum of the exponents' variances, as seeds are added one by one.
class ExponentVariance {
 public:
  explicit ExponentVariance(const FittedLaw& law) : law_(law) {
    const auto n = static_cast<Eigen::Index>(law.parameters.size());
    information_ = Eigen::MatrixXd::Zero(n, n);
    for (const LawSize& size : law.sizes) {
      gradients_.push_back(Gradient(law, size.point));
      information_ += size.seeds * gradients_.back() * gradients_.back().transpose();
    }
  }

  double Now() const { return Of(information_); }
  double With(size_t size) const { return Of(information_ + gradients_[size] * gradients_[size].transpose()); }
  void Add(size_t size) { information_ += gradients_[size] * gradients_[size].transpose(); }

 private:
  double Of(const Eigen::MatrixXd& information) const {
    const Eigen::LDLT<Eigen::MatrixXd> solver(information);
    double sum = 0;
    for (const size_t index : law_.exponents) {
      const auto i = static_cast<Eigen::Index>(index);
      const Eigen::VectorXd unit = Eigen::VectorXd::Unit(information.rows(), i);
      const double scale = law_.noise * law_.parameters[index];
      sum += scale * scale * solver.solve(unit)(i);
    }
    return sum;
  }

  const FittedLaw& law_;
  std::vector<Eigen::VectorXd> gradients_;
  Eigen::MatrixXd information_;
};

struct SimulatedSize {
  LawPoint point;
  int seeds = 0;
};

// Every seed of every size has noise of its own, the same however many seeds the sizes have.
std::vector<LawPoint> SimulatedRuns(const FittedLaw& law, const std::vector<SimulatedSize>& sizes, uint64_t seed,
                                    size_t simulation) {
  std::vector<LawPoint> runs;
  for (size_t s = 0; s < sizes.size(); ++s) {
    boost::random::mt19937_64 generator((seed * 0x9e3779b97f4a7c15u + simulation) * 0x2545f4914f6cdd1du + s);
    boost::random::normal_distribution<double> normal;
    for (int n = 0; n < sizes[s].seeds; ++n) {
      LawPoint run = sizes[s].point;
      run.y = std::exp(LogLoss(law, law.parameters, run) + law.noise * normal(generator));
      runs.push_back(run);
    }
  }
  return runs;
}

// Half of the percentile interval of each exponent; absent when fewer than half of the data sets determine a law.
std::optional<std::vector<double>> SimulateHalfWidths(const FittedLaw& law, const std::vector<SimulatedSize>& sizes,
                                                      const LawSuggestRequest& request) {
  std::vector<std::vector<double>> fits(static_cast<size_t>(request.simulations));
  ParallelFor(fits.size(), 0, [&](size_t i) {
    const std::vector<LawPoint> runs = SimulatedRuns(law, sizes, request.seed, i);
    const auto solver = MakeProjectionSolver(law.form, runs);
    const std::vector<double> once(runs.size(), 1);
    fits[i] = solver->Refit(once, law.parameters).value_or(std::vector<double>());
  });
  const auto fitted = std::ranges::count_if(fits, [](const auto& fit) { return !fit.empty(); });
  if (2 * fitted < request.simulations) return std::nullopt;
  std::vector<double> halves;
  for (const size_t index : law.exponents) {
    const Range range = PercentileInterval(Column(fits, index), request.slopes.confidence);
    halves.push_back((range.high - range.low) / 2);
  }
  return halves;
}

std::vector<SimulatedSize> Simulated(const FittedLaw& law, const std::vector<int>& seeds) {
  std::vector<SimulatedSize> sizes;
  for (size_t i = 0; i < law.sizes.size(); ++i) sizes.push_back({law.sizes[i].point, seeds[i]});
  return sizes;
}

// Squared deviations of ln L from the means of their sizes, and of sizes from the law.
double NoiseOf(const FittedLaw& law, const std::vector<std::vector<double>>& losses) {
  double squares = 0, degrees = 0;
  for (const std::vector<double>& size : losses) {
    std::vector<double> logs;
    for (const double loss : size) logs.push_back(std::log(loss));
    const double mean = Mean(logs);
    for (const double value : logs) squares += (value - mean) * (value - mean);
    degrees += static_cast<double>(logs.size()) - 1;
  }
  if (degrees >= 1 && squares > 0) return std::sqrt(squares / degrees);
  squares = 0, degrees = static_cast<double>(law.sizes.size()) - static_cast<double>(law.parameters.size());
  for (const LawSize& size : law.sizes) {
    const double residual = std::log(size.point.y) - LogLoss(law, law.parameters, size.point);
    squares += residual * residual;
  }
  return degrees >= 1 ? std::sqrt(squares / degrees) : 0;
}

class LawSuggester {
 public:
  LawSuggester(const Selection& selection, const LawSuggestRequest& request, LawSuggestResult* out)
      : selection_(selection), request_(request), costs_(TrainingFlopsOfSizes(selection)), out_(out) {}

  common::Status Run(const records::Table& table, LeftOutList* left_out) {
    ALLO_ASSIGN_OR_RETURN(const auto groups,
                          PointsOfForm(selection_, request_.form, {.slopes = request_.slopes}, left_out));
    for (const StudiedPoints& points : groups)
      if (IsWanted(points.architecture)) AddLaw(points);
    if (laws_.empty())
      return common::FailedPrecondition("there is no law to narrow; of " + out_->exponents.front().architecture + ": " +
                                        out_->exponents.front().refused);
    const std::vector<std::vector<int>> seeds = ChooseSeeds();
    AddCells(seeds, table);
    AddHalfWidths(seeds);
    AddNotes();
    return common::Ok();
  }

 private:
  bool IsWanted(const std::string& architecture) const {
    return request_.architectures.empty() || std::ranges::count(request_.architectures, architecture) > 0;
  }

  void AddLaw(const StudiedPoints& points) {
    FittedLaw law{points.architecture, request_.form, {}, ExponentsOf(request_.form), 0, {}};
    const std::string refused = FitInto(points, &law);
    for (const size_t index : law.exponents) {
      SuggestedExponent shown{points.architecture, LawParameterNames(request_.form)[index], {}, {}, {}, refused};
      if (!law.parameters.empty()) shown.value = law.parameters[index];
      out_->exponents.push_back(std::move(shown));
    }
    if (refused.empty()) laws_.push_back(std::move(law));
  }

  // Why the law cannot be narrowed; empty if it can.
  std::string FitInto(const StudiedPoints& points, FittedLaw* law) const {
    const auto fits = FitLaw(request_.form, points.points, {.replicates = 0});
    if (!fits) return fits.error().message;
    const LawFit& fit = fits->fits.back();  // least squares, which the simulation refits
    if (!fit.converged()) return "not converged: " + fit.certificate.failures.front();
    law->parameters = fit.Parameters();
    std::vector<std::vector<double>> losses;
    for (size_t i = 0; i < points.points.size(); ++i) {
      const auto cost = costs_.find({points.architecture, points.names[i]});
      if (cost == costs_.end())
        return "no training_flops was recorded at size " + points.names[i] + ", so a seed there has no price";
      losses.push_back(LossesOf(points.architecture, points.names[i]));
      law->sizes.push_back({points.names[i], points.points[i], static_cast<int>(losses.back().size()), cost->second});
    }
    law->noise = NoiseOf(*law, losses);
    return law->noise > 0 ? "" : "neither seeds nor sizes tell how far losses stray from the law";
  }

  std::vector<double> LossesOf(const std::string& architecture, const std::string& size) const {
    std::vector<double> losses;
    for (const CellGroup& group : selection_.groups) {
      if (group.architecture != architecture || group.size != size) continue;
      for (const records::Record* cell : group.cells)
        if (const auto loss = MetricValue(*cell, "validation_loss", true).value) losses.push_back(*loss);
    }
    return losses;
  }

  // Seeds of each size of each law.
  std::vector<std::vector<int>> ChooseSeeds() const {
    std::vector<std::vector<int>> seeds;
    std::vector<ExponentVariance> variances;
    for (const FittedLaw& law : laws_) {
      variances.emplace_back(law);
      seeds.emplace_back();
      for (const LawSize& size : law.sizes) seeds.back().push_back(size.seeds);
    }
    double left = request_.budget_flops;
    for (;;) {
      double best_gain = 0;
      size_t best_law = 0, best_size = 0;
      for (size_t l = 0; l < laws_.size(); ++l) {
        const double now = variances[l].Now();
        for (size_t s = 0; s < laws_[l].sizes.size(); ++s) {
          const double cost = laws_[l].sizes[s].cost;
          if (cost > left || seeds[l][s] >= request_.cap) continue;
          const double gain = (now - variances[l].With(s)) / cost;
          if (gain > best_gain) best_gain = gain, best_law = l, best_size = s;
        }
      }
      if (!(best_gain > 0)) return seeds;
      variances[best_law].Add(best_size);
      ++seeds[best_law][best_size];
      left -= laws_[best_law].sizes[best_size].cost;
    }
  }

  void AddCells(const std::vector<std::vector<int>>& seeds, const records::Table& table) {
    std::map<SizeKey, std::set<uint64_t>> taken = SeedsTaken(table);
    for (size_t l = 0; l < laws_.size(); ++l)
      for (size_t s = 0; s < laws_[l].sizes.size(); ++s)
        for (int n = laws_[l].sizes[s].seeds; n < seeds[l][s]; ++n) {
          const LawSize& size = laws_[l].sizes[s];
          out_->cells.push_back(
              {laws_[l].architecture, size.size, NextSeed(&taken[{laws_[l].architecture, size.size}]), size.cost});
          out_->flops += size.cost;
        }
  }

  void AddHalfWidths(const std::vector<std::vector<int>>& seeds) {
    for (size_t l = 0; l < laws_.size(); ++l) {
      const FittedLaw& law = laws_[l];
      std::vector<int> as_now;
      for (const LawSize& size : law.sizes) as_now.push_back(size.seeds);
      const auto now = SimulateHalfWidths(law, Simulated(law, as_now), request_);
      const auto after = SimulateHalfWidths(law, Simulated(law, seeds[l]), request_);
      for (size_t e = 0; e < law.exponents.size(); ++e) {
        SuggestedExponent& shown = *std::ranges::find_if(out_->exponents, [&](const SuggestedExponent& one) {
          return one.architecture == law.architecture && one.name == LawParameterNames(law.form)[law.exponents[e]];
        });
        if (now) shown.half_now = (*now)[e];
        if (after) shown.half_after = (*after)[e];
      }
      if (law.form == LawForm::kCompute && now) AddNewSize(law, as_now, now->front());
    }
  }

  void AddNewSize(const FittedLaw& law, const std::vector<int>& seeds, double half_now) {
    const LawSize& dearest = law.sizes.back();
    const LawSize& before = law.sizes[law.sizes.size() - 2];
    SuggestedLawSize size{.architecture = law.architecture, .half_now = half_now};
    size.x = dearest.point.x * dearest.point.x / before.point.x;
    size.flops = kSeedsOfNewSize * dearest.cost * dearest.cost / before.cost;
    size.affordable = size.flops <= request_.budget_flops;
    std::vector<SimulatedSize> sizes = Simulated(law, seeds);
    sizes.push_back({{size.x, 0, 0}, kSeedsOfNewSize});
    const auto after = SimulateHalfWidths(law, sizes, request_);
    if (!after || !(size.flops > 0) || !std::isfinite(size.x * size.flops)) return;
    size.half_after = after->front();
    out_->new_sizes.push_back(size);
  }

  void AddNotes() {
    if (out_->cells.empty())
      out_->notes.push_back("the budget pays no further seed, or every size has as many as the cap");
    out_->notes.push_back(
        "expected widths are simulated under the law as it is fitted now: if the form is wrong, so are they");
    out_->notes.push_back("FLOPs are those of pretraining: fine-tuning is not in them");
    if (!out_->new_sizes.empty())
      out_->notes.push_back("the price of a new size is a guess from the two sizes next to it");
  }

  const Selection& selection_;
  const LawSuggestRequest& request_;
  std::map<SizeKey, double> costs_;
  LawSuggestResult* out_;
  std::vector<FittedLaw> laws_;
};

common::Status CheckLawSuggest(const LawSuggestRequest& request) {
  if (!(request.budget_flops > 0) || !std::isfinite(request.budget_flops))
    return common::InvalidArgument("the budget must be a positive number of training FLOPs, as in 1e18");
  if (request.cap < kLowestCap || request.cap > kHighestCap)
    return common::InvalidArgument("the cap on seeds of a size must lie between 2 and 1,000");
  if (request.form != LawForm::kCompute && request.form != LawForm::kParametersTokens)
    return common::InvalidArgument("next runs are suggested for the laws compute and parameters_tokens, not for " +
                                   std::string(LawFormName(request.form)));
  if (request.simulations < 100 || request.simulations > 100'000)
    return common::InvalidArgument("the simulated data sets must be 100 to 100,000");
  if (!(request.slopes.confidence > 0.5 && request.slopes.confidence < 1))
    return common::InvalidArgument("the confidence must lie between 0.5 and 1");
  return common::Ok();
}

}  // namespace

Result<LawSuggestResult> SuggestForLaws(const records::Table& table, const LawSuggestRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckLawSuggest(request));
  LawSuggestResult result{.request = request};
  ALLO_ASSIGN_OR_RETURN(const RequestedCells cells,
                        FilteredCells(table, request.slopes.filter, request.slopes.exclude));
  ALLO_ASSIGN_OR_RETURN(const Selection selection, SelectCells(cells, request.slopes.tasks));
  if (selection.groups.empty()) return NoCells(selection);
  ALLO_RETURN_IF_ERROR(CheckArchitectures(request.architectures, selection));
  LeftOutList left_out(selection.left_out);
  ALLO_RETURN_IF_ERROR(LawSuggester(selection, result.request, &result).Run(table, &left_out));
  result.downstream = selection.downstream;
  result.left_out = left_out.entries();
  return result;
}

Json ToJson(const LawSuggestResult& result) {
  const LawSuggestRequest& request = result.request;
  Json json = {{"law", LawFormName(request.form)},
               {"flops", FlopConventionName(request.slopes.flops)},
               {"parameters", ParameterConventionName(request.slopes.parameters)},
               {"confidence", request.slopes.confidence},
               {"filter", request.slopes.filter},
               {"budget_flops", common::JsonNumber(request.budget_flops)},
               {"cap", request.cap},
               {"seed", request.seed},
               {"simulations", request.simulations},
               {"total_flops", common::JsonNumber(result.flops)},
               {"cells", Json::array()},
               {"exponents", Json::array()},
               {"new_sizes", Json::array()},
               {"notes", result.notes},
               {"left_out", LeftOutJson(result.left_out)}};
  for (const SuggestedCell& c : result.cells)
    json["cells"].push_back(
        {{"architecture", c.architecture}, {"size", c.size}, {"seed", c.seed}, {"flops", common::JsonNumber(c.flops)}});
  for (const SuggestedExponent& e : result.exponents)
    json["exponents"].push_back({{"architecture", e.architecture},
                                 {"name", e.name},
                                 {"value", OrNull(e.value)},
                                 {"half_width_now", OrNull(e.half_now)},
                                 {"half_width_after", OrNull(e.half_after)},
                                 {"refused", e.refused}});
  for (const SuggestedLawSize& s : result.new_sizes)
    json["new_sizes"].push_back({{"architecture", s.architecture},
                                 {"at", common::JsonNumber(s.x)},
                                 {"flops", common::JsonNumber(s.flops)},
                                 {"affordable", s.affordable},
                                 {"half_width_now", common::JsonNumber(s.half_now)},
                                 {"half_width_after", common::JsonNumber(s.half_after)}});
  return json;
}

}  // namespace allometry::analysis
