#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "analysis/measures.h"
#include "common/result.h"
#include "records/records.h"

// What one more seed of a size costs, and which seeds are free. Pure functions.
namespace allometry::analysis {

using SizeKey = std::pair<std::string, std::string>;  // architecture, size as SizeLabel

// Training FLOPs of one seed, as the mean of the size's cells. A size of which no cell tells them has no entry.
std::map<SizeKey, double> TrainingFlopsOfSizes(const Selection& selection);

// Seeds that are taken, whatever became of them: a diverged seed stays taken.
std::map<SizeKey, std::set<uint64_t>> SeedsTaken(const records::Table& table);

// The lowest free seed from the lowest taken one up, which is then taken.
uint64_t NextSeed(std::set<uint64_t>* taken);

// kNotFound, with the nearest name, unless every wanted architecture has a cell in the selection.
common::Status CheckArchitectures(const std::vector<std::string>& wanted, const Selection& selection);

}  // namespace allometry::analysis
