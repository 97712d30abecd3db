#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/result.h"
#include "records/records.h"

namespace allometry::records {

// The pretraining cells of these sweeps (none named: of all), in the sweeps' and the grid's order, from a coordinator's
// database (sql/schema.md). Opens a read-only connection of its own, so it may run in any thread, beside a live
// coordinator or without one; reads a page of cells a transaction, so that the writer's log can always be folded back.
//
// A cell's metrics are those of its result, with what is computed from the architecture (parameters, FLOPs) before what
// a trainer reports, and the dimensions of its shape by their names (encoder_layers, d_model, ...). Scores come from
// the fine-tuning cells of the same sweep, as records/scores.h reads them.
//
// kNotFound: no such file or sweep; kFailedPrecondition: not an Allometry database, or one of a newer program;
// kUnavailable: locked or unreadable now.
common::Result<Table> LoadSqlite(const std::filesystem::path& database, const std::vector<std::string>& sweeps);

}  // namespace allometry::records
