#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cli/client.h"
#include "common/json.h"
#include "common/table.h"

namespace allometry::cli {

// A column for each key of any row, in order of appearance; nested values as JSON text.
common::Table RowsTable(const std::vector<common::Json>& rows, const std::string& name);

// Where an export comes from: a coordinator, or a database file without one.
struct ExportSource {
  Client* client = nullptr;  // null: `database`
  std::filesystem::path database;
  std::string sweep;  // empty: all
  std::string what;   // "cells", "metrics" or "scores"
};

common::Result<std::vector<common::Json>> ReadExport(const ExportSource& source);

// The export as text, "jsonl" or of metrics "csv", in pieces of whole lines to `take`; ends with its first error.
common::Status StreamExport(const ExportSource& source, const std::string& format,
                            const std::function<common::Status(const std::string&)>& take);

// cells.csv, scores.csv, metrics.csv of a sweep in a folder, which is created. Each file appears whole or not at all.
common::Status WriteExports(Client& client, const std::string& sweep, const std::filesystem::path& folder);

}  // namespace allometry::cli
