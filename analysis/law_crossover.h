#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/law_bootstrap.h"
#include "analysis/laws.h"
#include "analysis/line.h"
#include "analysis/measures.h"

// Where two laws L = E + A/C^alpha meet, for crossovers of curved lines beyond what was measured (docs/science.md,
// "Crossovers"). Pure functions.
namespace allometry::analysis {

// The law of one architecture, by Huber's fit.
struct ArchitectureLaw {
  std::optional<LawFit> fit;  // with its replicates; only if it converged
  std::string refused;        // why there is none
};

// Through the runs of a slope of U against F or P, as the transform left them. `seed` is of the bootstrap: two
// architectures that are held against each other need two.
ArchitectureLaw FitArchitectureLaw(std::span<const SizeSamples> sizes, Transform transform, uint64_t seed);

// The first crossing of the laws above a compute, or below it.
struct LawCrossing {
  double at = 0;                    // ln C, or ln N
  std::optional<double> low, high;  // percentiles over the paired replicates; absent where too many have no crossing
  double no_crossing = 0;           // share of the replicates that have none on this side
};

// `from` is ln C. Absent when the estimates do not cross on that side. As the difference of two such laws has one
// turning point, two crossings are the most that there can be.
std::optional<LawCrossing> CrossLaws(const LawFit& first, const LawFit& second, double from, bool above,
                                     double confidence);

}  // namespace allometry::analysis
