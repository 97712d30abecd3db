#pragma once

#include "allometry/v1/analysis_service.pb.h"
#include "common/table.h"

// Tables of laws, back-tests and next runs, made from the wire's messages. Column names are documented in docs/cli.md.
namespace allometry::cli {

// For people a row a fit; `tidy`: a row a parameter.
common::Table LawsTable(const v1::FitResponse& fit, bool tidy);
// A row a converged fit with a budget: the best N and D.
common::Table OptimaTable(const v1::FitResponse& fit);

// A row a form on a pair of axes: its errors over the architectures.
common::Table ErrorsTable(const v1::BacktestResponse& backtest);
// A row a form asked of an architecture. For people without those that refused: the notes say which, and why.
common::Table ForecastsTable(const v1::BacktestResponse& backtest, bool tidy);

// A row a cell to run.
common::Table SuggestedCellsTable(const v1::SuggestResponse& suggested);
// A row a slope or exponent: its half width now, and with the cells.
common::Table TargetsTable(const v1::SuggestResponse& suggested);
// A row a size that does not exist yet. `quantity`: its place is FLOPs or parameters.
common::Table NewSizesTable(const v1::SuggestResponse& suggested);
// A row a number of sizes.
common::Table PowerTable(const v1::SuggestResponse& suggested);

}  // namespace allometry::cli
