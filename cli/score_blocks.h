#pragma once

#include <string>

#include "allometry/v1/analysis_service.pb.h"
#include "common/table.h"

// The answer to `allo scores` as text (docs/cli.md).
namespace allometry::cli {

// For people, scores times 100: a line a task or average, a column a cell, under its architecture. Seventeen tasks and
// their averages do not fit beside each other on a terminal, so cells do, in as many blocks as `width` columns of text
// make necessary; cells of an architecture stay together where they fit. 0: one block.
std::string ScoreBlocks(const v1::ScoresResponse& scores, int width);

// The same in one table.
common::Table ScoresForPeople(const v1::ScoresResponse& scores);

// For programs: a row a score that is there, as a fraction.
common::Table TidyScores(const v1::ScoresResponse& scores);

}  // namespace allometry::cli
