#pragma once

#include <string>

#include "cli/client.h"
#include "cli/output.h"

namespace allometry::cli {

common::Result<v1::SlopesResponse> AskSlopes(Client& client, const v1::SlopesRequest& request);
common::Result<v1::ParetoResponse> AskPareto(Client& client, const v1::ParetoRequest& request);

// Prints the answers in the wanted format. JSON is the analysis' own object (docs/cli.md).
void PrintSlopes(const v1::SlopesResponse& slopes, const OutputOptions& output);
void PrintPareto(const v1::ParetoRequest& request, const v1::ParetoResponse& pareto, const OutputOptions& output);

// The end of a sweep: slope table, Pareto table. Says why there is none where the analysis refuses.
void PrintStudy(Client& client, const std::string& sweep);

}  // namespace allometry::cli
