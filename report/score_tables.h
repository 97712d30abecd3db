#pragma once

#include <vector>

#include "analysis/score_table.h"
#include "report/report.h"

namespace allometry::report {

// The scores a row a model, times 100, in tables that fit a page: one a benchmark, one of other tasks, one of averages.
// "81.2 ±0.4*" with the spread between seeds; the notes explain the signs that occur.
std::vector<TitledTable> ScoreTables(const analysis::ScoresResult& scores);

}  // namespace allometry::report
