#pragma once

#include "analysis/backtest.h"
#include "analysis/crossover.h"
#include "analysis/rank.h"
#include "analysis/suggest.h"
#include "common/json.h"

// Results as programs read them. The keys are documented in docs/science.md, "Output".
namespace allometry::analysis {

common::Json ToJson(const CrossoversResult& result);
common::Json ToJson(const RankResult& result);
common::Json ToJson(const SuggestResult& result);
common::Json ToJson(const BacktestResult& result);

}  // namespace allometry::analysis
