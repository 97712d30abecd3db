#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/client.h"
#include "common/json.h"
#include "common/table.h"

namespace allometry::cli {

// The rows of SweepService.Export; `what` is "cells", "metrics" or "scores", an empty sweep means all.
common::Result<std::vector<common::Json>> ReadExport(Client& client, const std::string& sweep, const std::string& what);

// A column for each key of any row, in order of appearance; nested values as JSON text.
common::Table RowsTable(const std::vector<common::Json>& rows, const std::string& name);

// cells.csv, scores.csv, metrics.csv of a sweep in a folder, which is created. Each file appears whole or not at all.
common::Status WriteExports(Client& client, const std::string& sweep, const std::filesystem::path& folder);

}  // namespace allometry::cli
