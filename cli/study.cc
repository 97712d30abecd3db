#include "cli/study.h"

#include <iostream>

#include "cli/tables.h"

namespace allometry::cli {
namespace {

// The analysis' own JSON where it parses, else what the table holds.
common::Json JsonOf(const std::string& text, const common::Table& table) {
  const auto json = common::ParseJson(text, "analysis");
  return json && json->is_object() ? *json : common::TableToJson(table);
}

}  // namespace

common::Result<v1::SlopesResponse> AskSlopes(Client& client, const v1::SlopesRequest& request) {
  return client.Call(client.analysis(), &v1::AnalysisService::Stub::Slopes, request);
}

common::Result<v1::ParetoResponse> AskPareto(Client& client, const v1::ParetoRequest& request) {
  return client.Call(client.analysis(), &v1::AnalysisService::Stub::Pareto, request);
}

void PrintSlopes(const v1::SlopesResponse& slopes, const OutputOptions& output) {
  const common::OutputFormat format = FormatOf(output);
  const bool tidy = format == common::OutputFormat::kCsv || format == common::OutputFormat::kJson;
  const common::Table table = SlopesTable(slopes, tidy);
  Print(table, JsonOf(slopes.json(), table), output);
}

void PrintPareto(const v1::ParetoRequest& request, const v1::ParetoResponse& pareto, const OutputOptions& output) {
  const common::Table table = ParetoTable(pareto, request.cost(), request.quality());
  Print(table, JsonOf(pareto.json(), table), output);
}

void PrintStudy(Client& client, const std::string& sweep) {
  v1::SlopesRequest slopes_request;
  slopes_request.add_sweeps(sweep);
  std::cout << "\nSlopes\n";
  if (const auto slopes = AskSlopes(client, slopes_request))
    PrintSlopes(*slopes, {});
  else
    std::cout << "none: " << slopes.error().message << '\n';
  v1::ParetoRequest pareto_request;
  pareto_request.add_sweeps(sweep);
  std::cout << "\nPareto: forward FLOPs against upstream quality\n";
  if (const auto pareto = AskPareto(client, pareto_request))
    PrintPareto(pareto_request, *pareto, {});
  else
    std::cout << "none: " << pareto.error().message << '\n';
}

}  // namespace allometry::cli
