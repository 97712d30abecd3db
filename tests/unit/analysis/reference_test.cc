// The whole analysis against an independent implementation in Python (make_reference.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "analysis/pareto.h"
#include "analysis/slopes.h"
#include "common/json.h"
#include "records/table_io.h"

namespace allometry::analysis {
namespace {

using common::Json;

// The reference differentiates numerically, with about seven digits.
constexpr double kRelative = 2e-6;

std::string DataFile(const char* name) {
  return std::string(ALLOMETRY_SOURCE_DIR) + "/tests/unit/analysis/data/" + name;
}

records::Table Cells() {
  std::ifstream in(DataFile("cells.jsonl"));
  return records::ReadJsonLines(in, "cells.jsonl").value();
}

Json Reference() { return common::ReadJsonFile(DataFile("reference.json")).value(); }

void ExpectNear(double value, const Json& wanted, const std::string& what) {
  const double expected = wanted.get<double>();
  EXPECT_NEAR(value, expected, kRelative * std::max(1e-3, std::abs(expected))) << what;
}

void ExpectInterval(const std::optional<Interval>& interval, const Json& wanted, const char* key,
                    const std::string& what) {
  ASSERT_EQ(interval.has_value(), wanted.contains(key)) << what;
  if (!interval) return;
  ExpectNear(interval->low, wanted[key][0], what + " low");
  ExpectNear(interval->high, wanted[key][1], what + " high");
  ExpectNear(interval->degrees_of_freedom, wanted[key][2], what + " degrees of freedom");
}

SlopesResult SlopesOf(const Json& wanted) {
  SlopesRequest request;
  request.transform = ParseTransform(wanted["transform"].get<std::string>()).value();
  request.flops = ParseFlopConvention(wanted["flops"].get<std::string>()).value();
  request.parameters = ParseParameterConvention(wanted["parameters"].get<std::string>()).value();
  request.baseline = "transformer";
  return Slopes(Cells(), request).value();
}

std::string PairKey(Axis x, Axis y) { return std::string(AxisName(x)) + "," + AxisName(y); }

// The flags that the reference knows; it knows no ranges.
std::vector<std::string> KnownFlags(const SlopeEstimate& e) {
  std::vector<std::string> flags;
  for (const std::string& flag : e.flags)
    if (flag != "ranges differ") flags.push_back(flag);
  std::ranges::sort(flags);
  return flags;
}

TEST(Reference, EverySlopeIntervalAndFlag) {
  const Json reference = Reference();
  for (const Json& wanted : reference["slopes"]) {
    for (const ArchitectureSlopes& architecture : SlopesOf(wanted).architectures) {
      for (const Slope& slope : architecture.slopes) {
        const Json& w = wanted["slopes"][architecture.architecture][PairKey(slope.x, slope.y)];
        const std::string what =
            wanted["transform"].get<std::string>() + " " + architecture.architecture + " " + PairKey(slope.x, slope.y);
        ASSERT_TRUE(slope.estimate.alpha) << what;
        ExpectNear(*slope.estimate.alpha, w["alpha"], what);
        ExpectInterval(slope.estimate.seed_interval, w, "seed_interval", what);
        ExpectInterval(slope.estimate.line_interval, w, "line_interval", what);
        EXPECT_EQ(slope.points.size(), w["sizes"].get<size_t>()) << what;
        EXPECT_EQ(slope.cells, w["cells"].get<int>()) << what;
        EXPECT_EQ(KnownFlags(slope.estimate), w["flags"].get<std::vector<std::string>>()) << what;
      }
    }
  }
}

void ExpectDifference(const std::optional<Interval>& interval, const std::optional<double>& p,
                      const std::optional<double>& holm, const Json& wanted, const std::string& what) {
  ASSERT_EQ(interval.has_value(), !wanted.is_null()) << what;
  if (!interval) return;
  ExpectNear(interval->low, wanted["low"], what);
  ExpectNear(interval->high, wanted["high"], what);
  ExpectNear(interval->degrees_of_freedom, wanted["degrees_of_freedom"], what);
  // A small p-value carries the variance's error many times over.
  EXPECT_NEAR(*p / wanted["p"].get<double>(), 1, 1e-4) << what;
  EXPECT_NEAR(*holm / wanted["p_holm"].get<double>(), 1, 1e-4) << what;
}

TEST(Reference, EveryDifferenceWithHolm) {
  const Json reference = Reference();
  for (const Json& wanted : reference["slopes"]) {
    const SlopesResult result = SlopesOf(wanted);
    ASSERT_EQ(result.comparisons.size(), wanted["comparisons"].size());
    for (size_t i = 0; i < result.comparisons.size(); ++i) {
      const SlopeComparison& c = result.comparisons[i];
      const Json& w = wanted["comparisons"][i];
      const std::string what = c.first + " against " + c.second + " " + PairKey(c.x, c.y);
      ASSERT_EQ(c.first, w["first"]) << what;
      ASSERT_EQ(AxisName(c.x), w["x"].get<std::string>());
      ExpectNear(*c.difference, w["difference"], what);
      ExpectDifference(c.seed_interval, c.p_seeds, c.p_seeds_holm, w["seeds"], what);
      ExpectDifference(c.line_interval, c.p_line, c.p_line_holm, w["line"], what + " (line)");
    }
  }
}

TEST(Reference, EveryFrontier) {
  const Json reference = Reference();
  for (const auto& [name, wanted] : reference["pareto"].items()) {
    ParetoRequest request;
    request.costs = {ParseCost(name.substr(0, name.find(','))).value()};
    request.quality = name.substr(name.find(',') + 1);
    const ParetoResult result = Pareto(Cells(), request).value();
    std::vector<std::string> frontier;
    for (const ParetoPoint& point : result.points) {
      if (point.on_frontier) frontier.push_back(point.cell);
      // 10,000 draws here, 200,000 there: five standard errors.
      EXPECT_NEAR(*point.probability, wanted["probability"][point.cell].get<double>(), 0.026)
          << name << " " << point.cell;
    }
    std::ranges::sort(frontier);
    EXPECT_EQ(frontier, wanted["frontier"].get<std::vector<std::string>>()) << name;
    ExpectNear(*result.seed_sd, wanted["seed_sd"], name);
    ExpectNear(result.degrees_of_freedom, wanted["degrees_of_freedom"], name);
  }
}

}  // namespace
}  // namespace allometry::analysis
