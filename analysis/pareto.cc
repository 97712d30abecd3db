#include "analysis/pareto.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <stdexcept>

#include "analysis/frontier.h"
#include "common/ids.h"

namespace allometry::analysis {
namespace {

constexpr std::array<const char*, 7> kCostNames = {
    "flops", "training_flops", "parameters", "non_embedding_parameters", "active_parameters", "seconds", "memory"};
constexpr std::array<const char*, 7> kCostUnits = {"FLOP",       "FLOP",    "parameters", "parameters",
                                                   "parameters", "seconds", "bytes"};
constexpr int kDefaultRegions = 3;

std::string MetricOf(const ParetoRequest& request) {
  switch (request.cost) {
    case Cost::kFlops:
      return MetricOf(request.flops);
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

// A point with the qualities of its seeds.
struct Candidate {
  ParetoPoint point;
  std::vector<double> costs, qualities;
};

// The mean; of equal costs exactly that cost, so that ties between cells survive the rounding of a sum.
double MeanCost(const std::vector<double>& costs) {
  const auto [low, high] = std::ranges::minmax(costs);
  if (low == high) return low;
  double sum = 0;
  for (double cost : costs) sum += cost;
  return sum / static_cast<double>(costs.size());
}

void AddCell(const records::Record& cell, double cost, double quality, Candidate* candidate) {
  candidate->costs.push_back(cost);
  candidate->qualities.push_back(quality);
  const Measured parameters = MetricValue(cell, "parameters", true);
  if (parameters.value) candidate->point.parameters = parameters.value;
}

// The usable cells of each group; `used` collects them.
std::vector<Candidate> Candidates(const Selection& selection, const ParetoRequest& request, LeftOutList* left_out,
                                  std::vector<const records::Record*>* used) {
  std::vector<Candidate> candidates;
  const std::vector<std::string> chance_tasks = QualityTasks(request.quality, selection.downstream.parts);
  for (const CellGroup& group : selection.groups) {
    Candidate candidate;
    candidate.point.architecture = group.architecture;
    candidate.point.size = group.size;
    candidate.point.cell = group.architecture + "-" + group.size;
    for (const records::Record* cell : group.cells) {
      const Measured cost = MetricValue(*cell, MetricOf(request), true);
      const Measured quality = QualityValue(*cell, request.quality, selection.downstream.parts);
      if (!cost.value) left_out->Add(*cell, CostName(request.cost), cost.missing);
      if (!quality.value) left_out->Add(*cell, request.quality, quality.missing);
      if (!cost.value || !quality.value) continue;
      AddCell(*cell, *cost.value, *quality.value, &candidate);
      candidate.point.at_chance |= IsAtChance(*cell, chance_tasks);
      used->push_back(cell);
    }
    if (candidate.qualities.empty()) continue;
    candidate.point.cost = MeanCost(candidate.costs);
    candidates.push_back(std::move(candidate));
  }
  std::ranges::stable_sort(candidates, {}, [](const Candidate& c) { return c.point.cost; });
  return candidates;
}

// Edges of the regions with the outer ends, rising.
std::vector<double> Edges(const std::vector<Candidate>& candidates, const std::vector<double>& wanted) {
  const double low = candidates.front().point.cost, high = candidates.back().point.cost;
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
    const auto above = std::upper_bound(edges.begin() + 1, inner_end, candidate.point.cost);
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
  for (const Candidate& c : candidates) cells.push_back({c.point.cell, c.point.cost, c.qualities, c.point.region});
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

common::Status CheckRequest(const ParetoRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckDraws(request.draws, request.sd));
  if (std::ranges::adjacent_find(request.region_edges, std::greater_equal<>()) != request.region_edges.end())
    return common::InvalidArgument("the edges of the cost regions must rise");
  return common::Ok();
}

common::Status CheckDevices(const ParetoRequest& request, const std::vector<const records::Record*>& used) {
  const std::set<std::string> devices = DevicesOf(used);
  if (request.cost != Cost::kSeconds || devices.size() < 2) return common::Ok();
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

common::Result<ParetoResult> Pareto(const records::Table& table, const ParetoRequest& wanted) {
  ParetoRequest request = wanted;
  if (request.quality.empty()) request.quality = "upstream";
  ALLO_RETURN_IF_ERROR(CheckRequest(request));
  ALLO_ASSIGN_OR_RETURN(const records::Table cells, FilteredCells(table, request.filter, request.exclude));
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
  result.left_out = selection.left_out;
  return result;
}

}  // namespace allometry::analysis
