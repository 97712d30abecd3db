// What Fieller's sets promise, on synthetic truth, seeded.

#include <gtest/gtest.h>

#include <random>

#include "analysis/crossover.h"
#include "coverage_report.h"

namespace allometry::analysis {
namespace {

// Unbounded sets count like the others; a refusal promises nothing, and is not counted.
struct CrossingTruth {
  int sizes = 4, seeds = 2;
  double slope_difference = 0.3, crossing = 1.7;
  double sd_first = 0.1, sd_second = 0.1;
  double bend = 0;     // quadratic term of the first
  double size_sd = 0;  // of each size's deviation from the line
  int data_sets = 10'000;
};

struct CrossingCoverage {
  double covered = 0, unbounded = 0, refused = 0;
};

bool SetHolds(const Crossover& c, double x) {
  return std::ranges::any_of(
      c.bands, [&](const CrossoverBand& b) { return (!b.low || *b.low <= x) && (!b.high || x <= *b.high); });
}

CrossingCoverage CoverageOfCrossing(const CrossingTruth& truth) {
  std::mt19937_64 generator(1954);
  std::normal_distribution<double> normal;
  const auto samples = [&](double slope, double level, double bend, double sd) {
    std::vector<SizeSamples> sizes(static_cast<size_t>(truth.sizes));
    for (int i = 0; i < truth.sizes; ++i) {
      const double size = truth.size_sd * normal(generator);
      for (int s = 0; s < truth.seeds; ++s) {
        sizes[static_cast<size_t>(i)].x.push_back(i);
        sizes[static_cast<size_t>(i)].y.push_back(level + slope * i + bend * i * (i - truth.crossing) + size +
                                                  sd * normal(generator));
      }
    }
    return sizes;
  };
  CrossingCoverage out;
  for (int set = 0; set < truth.data_sets; ++set) {
    const auto first = samples(0.5 + truth.slope_difference, 0, truth.bend, truth.sd_first);
    const auto second = samples(0.5, truth.slope_difference * truth.crossing, 0, truth.sd_second);
    const Crossover c = FindCrossover(first, second, 0.95);
    out.covered += SetHolds(c, truth.crossing);
    out.unbounded += c.verdict == "no bounded crossover";
    out.refused += c.verdict == "refused";  // lines that came out curved by chance
  }
  const double answers = truth.data_sets - out.refused;
  return {out.covered / answers, out.unbounded / answers, out.refused / truth.data_sets};
}

void ExpectCrossoverCoverage(const std::string& study, const CrossingTruth& truth, const Promise& promised) {
  const CrossingCoverage found = CoverageOfCrossing(truth);
  ReportCoverage(study, found.covered, promised, truth.data_sets);
  ReportCoverage(study + ": unbounded", found.unbounded, {}, truth.data_sets);
  ReportCoverage(study + ": refused", found.refused, {0, 0.12}, truth.data_sets);
}

TEST(CrossoverCoverage, OfLinesFromTheSeeds) {
  ExpectCrossoverCoverage("inside", {}, {0.93, 0.97});
  ExpectCrossoverCoverage("often unbounded", {.slope_difference = 0.08}, {0.93, 0.97});
  ExpectCrossoverCoverage("extrapolated", {.crossing = 8}, {0.93, 0.97});
  ExpectCrossoverCoverage("three sizes", {.sizes = 3, .crossing = 1, .data_sets = DataSets(4'000)}, {0.93, 0.97});
  ExpectCrossoverCoverage("unequal architectures", {.seeds = 3, .sd_second = 0.3, .data_sets = DataSets(4'000)},
                          {0.93, 0.97});
}

TEST(CrossoverCoverage, OfLinesFromTheSizes) {
  ExpectCrossoverCoverage("seven sizes", {.sizes = 7, .seeds = 1, .size_sd = 0.1, .data_sets = DataSets(4'000)},
                          {0.93, 0.97});
}

TEST(CrossoverCoverage, OfQuadratics) {
  ExpectCrossoverCoverage("bent", {.sizes = 6, .bend = -0.1, .data_sets = DataSets(2'000)}, {0.93, 0.97});
  ExpectCrossoverCoverage("bent, three seeds", {.sizes = 5, .seeds = 3, .bend = -0.1, .data_sets = DataSets(2'000)},
                          {0.93, 0.97});
}

}  // namespace
}  // namespace allometry::analysis
