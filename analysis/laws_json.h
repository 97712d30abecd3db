#pragma once

#include "analysis/compute_optimal.h"
#include "analysis/isoflop.h"
#include "analysis/law_backtest.h"
#include "analysis/laws.h"
#include "common/json.h"

// Results of law fits as JSON; the keys are documented in docs/science.md, "Laws".
namespace allometry::analysis {

common::Json ToJson(const LawResult& result);
common::Json ToJson(const AllocationResult& result);
common::Json ToJson(const IsoFlopResult& result);
common::Json ToJson(const LawBacktestResult& result);

}  // namespace allometry::analysis
