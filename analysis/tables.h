#pragma once

#include <string>

#include "analysis/pareto.h"
#include "analysis/slopes.h"
#include "common/json.h"
#include "common/table.h"

// Results as people and programs read them. The JSON keys are documented in docs/science.md, "Output".
namespace allometry::analysis {

common::Json ToJson(const SlopesResult& result);
common::Json ToJson(const ParetoResult& result);

// For people: a row an architecture, with the study's four slopes as "0.540±0.048" (the seed interval; the line
// interval where there is no other), letters for flags, and their legend, conventions and left-out cells as notes.
common::Table ToTable(const SlopesResult& result);
// For programs: a row a slope, all seven of them and then those of tasks, every number in a column of its own.
common::Table SlopeRows(const SlopesResult& result);
// For people: a row a comparison of the study's four slopes, first minus second; no rows when none was asked for. JSON
// has all seven.
common::Table ComparisonTable(const SlopesResult& result);

// For people: α(F,task), a row a task and a column an architecture; no rows when tasks were not asked for.
common::Table TaskTable(const SlopesResult& result);

// For people: a row a cell, by rising first cost; regions and left-out cells as notes.
common::Table ToTable(const ParetoResult& result);
// For programs: a row a cell, every number in a column of its own.
common::Table ParetoRows(const ParetoResult& result);

// The whole output of a verb in one format: JSON is ToJson, CSV the rows for programs, the others the tables for
// people.
std::string Render(const SlopesResult& result, common::OutputFormat format, int width = 80);
std::string Render(const ParetoResult& result, common::OutputFormat format, int width = 80);

}  // namespace allometry::analysis
