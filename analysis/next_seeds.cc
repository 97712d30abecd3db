#include "analysis/next_seeds.h"

#include <algorithm>

#include "analysis/mean.h"
#include "common/ids.h"

namespace allometry::analysis {

std::map<SizeKey, double> TrainingFlopsOfSizes(const Selection& selection) {
  std::map<SizeKey, double> flops;
  for (const CellGroup& group : selection.groups) {
    std::vector<double> known;
    for (const records::Record* cell : group.cells)
      if (const auto value = MetricValue(*cell, MetricOf(FlopConvention::kTraining), true).value)
        known.push_back(*value);
    if (!known.empty()) flops[{group.architecture, group.size}] = Mean(known);
  }
  return flops;
}

std::map<SizeKey, std::set<uint64_t>> SeedsTaken(const records::Table& table) {
  std::map<SizeKey, std::set<uint64_t>> taken;
  for (const records::Record& record : table) taken[{record.architecture, SizeLabel(record)}].insert(record.seed);
  return taken;
}

uint64_t NextSeed(std::set<uint64_t>* taken) {
  uint64_t seed = taken->empty() ? 0 : *taken->begin();
  while (taken->contains(seed)) ++seed;
  taken->insert(seed);
  return seed;
}

common::Status CheckArchitectures(const std::vector<std::string>& wanted, const Selection& selection) {
  for (const std::string& name : wanted) {
    if (std::ranges::count(selection.architectures, name) > 0) continue;
    const std::string near = common::NearestName(name, selection.architectures);
    return common::NotFound("no finished cell has the architecture '" + name + "'" +
                            (near.empty() ? "" : " (did you mean '" + near + "'?)"));
  }
  return common::Ok();
}

}  // namespace allometry::analysis
