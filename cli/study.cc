#include "cli/study.h"

#include <iostream>

#include "cli/analysis_options.h"
#include "cli/tables.h"

namespace allometry::cli {

common::Result<v1::SlopesResponse> AskSlopes(Client& client, const v1::SlopesRequest& request) {
  return client.Call(client.analysis(), &v1::AnalysisService::Stub::Slopes, request);
}

common::Result<v1::ParetoResponse> AskPareto(Client& client, const v1::ParetoRequest& request) {
  return client.Call(client.analysis(), &v1::AnalysisService::Stub::Pareto, request);
}

void PrintSlopes(const v1::SlopesResponse& slopes, const OutputOptions& output) {
  PrintAnswer({SlopesTable(slopes, IsTidy(output)), TaskSlopesTable(slopes), ComparisonsTable(slopes)}, slopes.json(),
              output);
}

void PrintPareto(const v1::ParetoRequest& request, const v1::ParetoResponse& pareto, const OutputOptions& output) {
  PrintAnswer({ParetoTable(pareto, request), RegionsTable(pareto)}, pareto.json(), output);
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
