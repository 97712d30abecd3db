#pragma once

#include <filesystem>

#include "allometry/v1/analysis_service.pb.h"
#include "common/result.h"
#include "coordinator/store/rows.h"

// Tables of runs trained elsewhere, on their way into a database.
namespace allometry::coordinator {

struct ReadyImport {
  store::ImportedRow row;
  v1::ImportResponse response;
};

// The table that a request holds, read by records/import.h and packed. kInvalidArgument, with file, line and column.
common::Result<ReadyImport> ReadImport(const v1::ImportRequest& request);

// Into a database file that no coordinator has open; created if absent, in a folder that exists. Errors as ReadImport
// and Core::Import; kFailedPrecondition: a coordinator has it.
common::Result<v1::ImportResponse> ImportIntoFile(const std::filesystem::path& database,
                                                  const v1::ImportRequest& request);
common::Status RemoveImportFromFile(const std::filesystem::path& database, const std::string& name);

}  // namespace allometry::coordinator
