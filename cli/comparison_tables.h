#pragma once

#include "allometry/v1/analysis_service.pb.h"
#include "common/table.h"

// Tables of how architectures compare, made from the wire's messages. Column names are documented in docs/cli.md.
namespace allometry::cli {

// A row a pair. `quantity`: x is FLOPs or parameters, else a plain number. `tidy`: every number in a column of its own.
common::Table CrossoversTable(const v1::CrossoversResponse& crossovers, bool quantity, bool tidy);

// A row an architecture at a size.
common::Table RanksTable(const v1::RanksResponse& ranks);
// A row a pair of sizes: how far their orders agree.
common::Table AgreementsTable(const v1::RanksResponse& ranks);

}  // namespace allometry::cli
