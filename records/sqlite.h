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
// a trainer reports, and the dimensions of its shape by their names (encoder_layers, d_model, ...). Scores come from
// the fine-tuning cells of the same sweep, as records/scores.h reads them.
//
// kNotFound: no such file or sweep; kFailedPrecondition: not an Allometry database, or one of a newer program;
// kUnavailable: locked or unreadable now.
common::Result<Table> LoadSqlite(const std::filesystem::path& database, const std::vector<std::string>& sweeps);

// A sweep's definition as the database keeps it: the message SweepSpec as JSON. Errors as above; kNotFound also for an
// imported table, which has none.
common::Result<std::string> LoadSweepSpec(const std::filesystem::path& database, const std::string& sweep);

// A text that differs whenever LoadSqlite may answer differently; less than a millisecond. Errors as LoadSqlite.
//
// It is the number of the newest event (table `events`) and of the newest import (`meta`), with the file's device and
// inode. A coordinator numbers every
// change of a run's, cell's or sweep's state in the transaction that makes it, and never reuses a number, so two
// moments with the same number show the same cells; what else it commits (heartbeats, metrics of running attempts,
// logs) leaves the version as it is, and a cache stays good while a sweep runs. SQLite's own counters do not serve:
// data_version holds within one connection, the file's change counter stands still in WAL mode, and the log's header
// moves with every heartbeat. Who changes a database by hand must also add an event.
common::Result<std::string> DataVersion(const std::filesystem::path& database);

}  // namespace allometry::records
