#include "analysis/pareto.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <stdexcept>

#include "analysis/hypervolume.h"
#include "analysis/mean.h"
#include "analysis/parallel.h"
#include "common/ids.h"

namespace allometry::analysis {
namespace {

constexpr std::array<const char*, 7> kCostNames = {
    "flops", "training_flops", "parameters", "non_embedding_parameters", "active_parameters", "seconds", "memory"};
constexpr std::array<const char*, 7> kCostUnits = {"FLOP",       "FLOP",    "parameters", "parameters",
                                                   "parameters", "seconds", "bytes"};
constexpr int kDefaultRegions = 3;

std::string MetricOf(Cost cost, FlopConvention flops) {
  switch (cost) {
    case Cost::kFlops:
      return MetricOf(flops);
    case Cost::kTrainingFlops:
      return MetricOf(FlopConvention::kTraining);
    case Cost::kParameters:
      return MetricOf(ParameterConvention::kTotal);
    case Cost::kNonEmbeddingParameters:
      return MetricOf(ParameterConvention::kNonEmbedding);
    case Cost::kActiveParameters:
      return MetricOf(ParameterConvention::kActive);
    case Cost::kSeconds:
      return "device_seconds";
    case Cost::kMemory:
      return "peak_memory_bytes";
  }
  throw std::invalid_argument("unknown cost");
}

// A point with what its seeds measured.
struct Candidate {
  ParetoPoint point;
  std::vector<std::vector<double>> costs;  // of each cost of the request
  std::vector<double> qualities;
};

// The mean; of equal costs exactly that cost, so that ties between cells survive the rounding of a sum.
double MeanCost(const std::vector<double>& costs) {
  const auto [low, high] = std::ranges::minmax(costs);
  return low == high ? low : Mean(costs);
}

// A group as a point, which has no qualities when none of its cells can be used.
struct MeasuredPoint {
  Candidate candidate;
  std::vector<const records::Record*> used;
  std::vector<Omission> omissions;
};

// Reads what a request wants of cells.
class PointReader {
 public:
  PointReader(const ParetoRequest& request, const Selection& selection)
      : request_(request),
        parts_(selection.downstream.parts),
        chance_tasks_(QualityTasks(request.quality, selection.downstream.parts)) {
    for (const Cost cost : request.costs) metrics_.push_back(MetricOf(cost, request.flops));
  }

  MeasuredPoint Read(const CellGroup& group) const {
    MeasuredPoint out;
    Candidate& candidate = out.candidate;
    candidate.costs.resize(metrics_.size());
    candidate.point.architecture = group.architecture;
    candidate.point.size = group.size;
    candidate.point.cell = group.architecture + "-" + group.size;
    for (const records::Record* cell : group.cells) AddCell(*cell, &out);
    if (candidate.qualities.empty()) return out;
    for (const std::vector<double>& costs : candidate.costs) candidate.point.costs.push_back(MeanCost(costs));
    return out;
  }

 private:
  void AddCell(const records::Record& cell, MeasuredPoint* out) const {
    std::vector<double> costs;
    for (size_t k = 0; k < metrics_.size(); ++k) {
      Measured cost = MetricValue(cell, metrics_[k], true);
      if (cost.value) costs.push_back(*cost.value);
      if (!cost.value) out->omissions.push_back({&cell, CostName(request_.costs[k]), std::move(cost.missing)});
    }
    Measured quality = QualityValue(cell, request_.quality, parts_);
    if (!quality.value) out->omissions.push_back({&cell, request_.quality, std::move(quality.missing)});
    if (costs.size() < metrics_.size() || !quality.value) return;
    Candidate& candidate = out->candidate;
    for (size_t k = 0; k < costs.size(); ++k) candidate.costs[k].push_back(costs[k]);
    candidate.qualities.push_back(*quality.value);
    const Measured parameters = MetricValue(cell, MetricOf(ParameterConvention::kTotal), true);
    if (parameters.value) candidate.point.parameters = parameters.value;
    candidate.point.at_chance |= IsAtChance(cell, chance_tasks_);
    out->used.push_back(&cell);
  }

  const ParetoRequest& request_;
  std::vector<std::string> metrics_, parts_, chance_tasks_;
};

// The usable cells of each group; `used` collects them.
std::vector<Candidate> Candidates(const Selection& selection, const ParetoRequest& request, LeftOutList* left_out,
                                  std::vector<const records::Record*>* used) {
  const PointReader reader(request, selection);
  std::vector<MeasuredPoint> points(selection.groups.size());
  ParallelFor(points.size(), 0, [&](size_t i) { points[i] = reader.Read(selection.groups[i]); });
  std::vector<Candidate> candidates;
  for (MeasuredPoint& point : points) {
    for (const Omission& o : point.omissions) left_out->Add(*o.cell, o.measure, o.reason);
    used->insert(used->end(), point.used.begin(), point.used.end());
    if (!point.candidate.qualities.empty()) candidates.push_back(std::move(point.candidate));
  }
  std::ranges::stable_sort(candidates, {}, [](const Candidate& c) { return c.point.cost(); });
  return candidates;
}

// Edges of the regions with the outer ends, rising.
std::vector<double> Edges(const std::vector<Candidate>& candidates, const std::vector<double>& wanted) {
  const double low = candidates.front().point.cost(), high = candidates.back().point.cost();
  std::vector<double> edges{low};
  if (wanted.empty() && high > low) {
    for (int i = 1; i < kDefaultRegions; ++i)
      edges.push_back(low * std::pow(high / low, static_cast<double>(i) / kDefaultRegions));
  }
  for (double edge : wanted) {
    if (edge > low && edge <= high) edges.push_back(edge);
  }
  edges.push_back(high);
  return edges;
}

// Fills the points' regions; the last region holds its upper end too.
std::vector<ParetoRegion> DivideIntoRegions(const std::vector<double>& edges, std::vector<Candidate>* candidates) {
  std::vector<ParetoRegion> regions;
  for (size_t i = 0; i + 1 < edges.size(); ++i) regions.push_back({edges[i], edges[i + 1], 0, {}});
  for (Candidate& candidate : *candidates) {
    const auto inner_end = edges.end() - 1;
    const auto above = std::upper_bound(edges.begin() + 1, inner_end, candidate.point.cost());
    candidate.point.region = static_cast<int>(above - edges.begin()) - 1;
    ++regions[static_cast<size_t>(candidate.point.region)].cells;
  }
  return regions;
}

void AddBest(ParetoResult* result) {
  std::vector<std::map<std::string, double>> best(result->regions.size());
  for (const ParetoPoint& point : result->points) {
    if (!point.rank_probabilities.empty())
      best[static_cast<size_t>(point.region)][point.architecture] += point.rank_probabilities.front();
  }
  for (size_t i = 0; i < best.size(); ++i) {
    for (const auto& [architecture, probability] : best[i])
      result->regions[i].best.push_back({architecture, std::min(1.0, probability)});
    std::ranges::stable_sort(result->regions[i].best, std::greater<>(), &RegionBest::probability);
  }
}

void FillPoints(const std::vector<Candidate>& candidates, ParetoResult* result) {
  std::vector<FrontierCell> cells;
  for (const Candidate& c : candidates) cells.push_back({c.point.cell, c.point.costs, c.qualities, c.point.region});
  const ParetoRequest& request = result->request;
  const Frontier frontier = FindFrontier(cells, {.draws = request.draws, .seed = request.seed, .seed_sd = request.sd});
  for (size_t i = 0; i < candidates.size(); ++i) {
    ParetoPoint point = candidates[i].point;
    const FrontierPoint& found = frontier.points[i];
    point.quality = found.quality;
    point.seeds = found.seeds;
    point.on_frontier = found.on_frontier;
    point.probability = found.probability;
    point.rank_probabilities = found.rank_probabilities;
    result->points.push_back(std::move(point));
  }
  result->seed_sd = frontier.seed_sd;
  result->degrees_of_freedom = frontier.degrees_of_freedom;
  result->no_probability = WhyNoProbability(frontier.seed_sd, request.draws);
}

// The dearest of each cost, and the worst quality.
HypervolumeReference WorstOf(const std::vector<ParetoPoint>& points) {
  HypervolumeReference worst{points.front().costs, points.front().quality};
  for (const ParetoPoint& point : points) {
    std::ranges::transform(worst.costs, point.costs, worst.costs.begin(),
                           [](double a, double b) { return std::max(a, b); });
    worst.quality = std::min(worst.quality, point.quality);
  }
  return worst;
}

// As coordinates of which lower is better: decades of cost, and minus the quality.
std::vector<double> Coordinates(const std::vector<double>& costs, double quality) {
  std::vector<double> out;
  for (double cost : costs) out.push_back(std::log10(cost));
  out.push_back(-quality);
  return out;
}

void AddHypervolume(ParetoResult* result) {
  result->reference = result->request.reference.value_or(WorstOf(result->points));
  std::vector<ParetoPoint*> frontier;
  std::vector<std::vector<double>> coordinates;
  for (ParetoPoint& point : result->points) {
    if (!point.on_frontier) continue;
    frontier.push_back(&point);
    coordinates.push_back(Coordinates(point.costs, point.quality));
  }
  const auto measured =
      MeasureHypervolume(coordinates, Coordinates(result->reference.costs, result->reference.quality));
  if (!measured) {
    result->no_hypervolume = measured.error().message;
    return;
  }
  result->hypervolume = measured->volume;
  for (size_t i = 0; i < frontier.size(); ++i) frontier[i]->hypervolume = measured->contributions[i];
}

common::Status CheckReference(const ParetoRequest& request) {
  if (!request.reference) return common::Ok();
  const auto& [costs, quality] = *request.reference;
  const bool positive = std::ranges::all_of(costs, [](double cost) { return std::isfinite(cost) && cost > 0; });
  if (costs.size() == request.costs.size() && positive && std::isfinite(quality)) return common::Ok();
  return common::InvalidArgument("the hypervolume's reference takes one positive number for each cost, and a quality");
}

common::Status CheckCosts(const std::vector<Cost>& costs) {
  if (costs.empty()) return common::InvalidArgument("a frontier needs a cost, for instance flops");
  for (size_t i = 0; i < costs.size(); ++i) {
    if (std::ranges::count(costs, costs[i]) > 1)
      return common::InvalidArgument(std::string("the cost '") + CostName(costs[i]) + "' is named twice");
  }
  return common::Ok();
}

common::Status CheckRequest(const ParetoRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckCosts(request.costs));
  ALLO_RETURN_IF_ERROR(CheckReference(request));
  ALLO_RETURN_IF_ERROR(CheckDraws(request.draws, request.sd));
  if (std::ranges::adjacent_find(request.region_edges, std::greater_equal<>()) != request.region_edges.end())
    return common::InvalidArgument("the edges of the cost regions must rise");
  return common::Ok();
}

common::Status CheckDevices(const ParetoRequest& request, const std::vector<const records::Record*>& used) {
  if (std::ranges::count(request.costs, Cost::kSeconds) == 0) return common::Ok();
  const std::set<std::string> devices = DevicesOf(used);
  if (devices.size() < 2) return common::Ok();
  std::string names;
  for (const std::string& device : devices) names += (names.empty() ? "" : ", ") + device;
  return common::FailedPrecondition("times on unlike devices cannot be compared: " + names);
}

}  // namespace

const char* CostName(Cost cost) { return kCostNames[static_cast<size_t>(cost)]; }
const char* CostUnit(Cost cost) { return kCostUnits[static_cast<size_t>(cost)]; }

common::Result<Cost> ParseCost(std::string_view name) {
  if (name.empty()) return Cost::kFlops;
  for (size_t i = 0; i < kCostNames.size(); ++i) {
    if (name == kCostNames[i]) return static_cast<Cost>(i);
  }
  const std::string near = common::NearestName(std::string(name), kCostNames);
  return common::InvalidArgument("unknown cost '" + std::string(name) +
                                 "': use flops, training_flops, parameters, non_embedding_parameters, "
                                 "active_parameters, seconds or memory" +
                                 (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

common::Result<std::vector<Cost>> ParseCosts(std::string_view names) {
  std::vector<Cost> costs;
  for (;;) {
    const size_t comma = std::min(names.find(','), names.size());
    ALLO_ASSIGN_OR_RETURN(costs.emplace_back(), ParseCost(names.substr(0, comma)));
    if (comma == names.size()) break;
    names.remove_prefix(comma + 1);
  }
  ALLO_RETURN_IF_ERROR(CheckCosts(costs));
  return costs;
}

common::Result<ParetoResult> Pareto(const records::Table& table, const ParetoRequest& wanted) {
  ParetoRequest request = wanted;
  if (request.quality.empty()) request.quality = "upstream";
  ALLO_RETURN_IF_ERROR(CheckRequest(request));
  ALLO_ASSIGN_OR_RETURN(const RequestedCells cells, FilteredCells(table, request.filter, request.exclude));
  ALLO_ASSIGN_OR_RETURN(Selection selection, SelectCells(cells, request.tasks));
  if (selection.groups.empty()) return NoCells(selection);
  ALLO_RETURN_IF_ERROR(CheckQuality(request.quality, selection));
  LeftOutList left_out(selection.left_out);
  std::vector<const records::Record*> used;
  std::vector<Candidate> candidates = Candidates(selection, request, &left_out, &used);
  selection.left_out = left_out.entries();
  if (candidates.empty()) return NoCells(selection);
  ALLO_RETURN_IF_ERROR(CheckDevices(request, used));
  ParetoResult result{.request = request, .downstream = selection.downstream};
  result.regions = DivideIntoRegions(Edges(candidates, request.region_edges), &candidates);
  FillPoints(candidates, &result);
  AddBest(&result);
  AddHypervolume(&result);
  result.left_out = selection.left_out;
  return result;
}

}  // namespace allometry::analysis
