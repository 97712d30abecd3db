#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/result.h"
#include "records/records.h"

namespace allometry::records {

// The pretraining cells of these sweeps (none named: of all), in the sweeps' and the grid's order, from a coordinator's
// database (sql/schema.md); of an imported table, named like a sweep, all runs. Opens a read-only connection of its
// own, so it may run in any thread, beside a live coordinator or without one; reads a page of cells a transaction, so
// that the writer's log can always be folded back.
//
// A cell's metrics are those of its result, with what is computed from the architecture (parameters, FLOPs) before what
// a trainer reports. Scores come from the fine-tuning cells of the same sweep, as records/scores.h reads them.
//
// kNotFound: no such file or sweep; kFailedPrecondition: not an Allometry database, or one of a newer program;
// kUnavailable: locked or unreadable now.
common::Result<Table> LoadSqlite(const std::filesystem::path& database, const std::vector<std::string>& sweeps);

// A sweep's definition as the database keeps it: the message SweepSpec as JSON. Errors as above; kNotFound also for an
// imported table, which has none.
common::Result<std::string> LoadSweepSpec(const std::filesystem::path& database, const std::string& sweep);

}  // namespace allometry::records
