#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "common/json.h"

namespace allometry::analysis {

// What a study promises: a share of its data sets.
struct Promise {
  double low = 0, high = 1;
};

// How many data sets a study draws whose ten thousand take long: fewer among the unit tests, and as many as
// ALLOMETRY_COVERAGE_DATA_SETS says for the table.
inline int DataSets(int among_unit_tests) {
  const char* wanted = std::getenv("ALLOMETRY_COVERAGE_DATA_SETS");
  return wanted ? std::atoi(wanted) : among_unit_tests;
}

// Holds what a study found against what it promises. With --gtest_output=json:FILE the figures are in FILE, from which
// bench/analysis/coverage.py makes the table. `study` is unique in its test.
inline void ReportCoverage(const std::string& study, double found, const Promise& promised, int data_sets) {
  const common::Json figures = {
      {"found", found}, {"low", promised.low}, {"high", promised.high}, {"data_sets", data_sets}};
  ::testing::Test::RecordProperty(study, figures.dump());
  EXPECT_GE(found, promised.low) << study;
  EXPECT_LE(found, promised.high) << study;
}

}  // namespace allometry::analysis
