#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "allometry/v1/analysis_service.pb.h"
#include "cli/client.h"
#include "cli/output.h"
#include "coordinator/rpc/analyst.h"

// Options that the verbs of the analysis have in common, and where their answers come from.
namespace allometry::cli {

// Which cells, and where they are.
struct CellOptions {
  std::vector<std::string> sweeps, exclude;
  std::string filter;
  std::string database;  // a file in place of a coordinator
  ConnectOptions connect;
  OutputOptions output;
};
void AddSourceOptions(CLI::App* verb, CellOptions* options);  // all but the output
void AddCellOptions(CLI::App* verb, CellOptions* options);
// kInvalidArgument: neither a sweep nor a database file.
common::Status CheckCells(const CellOptions& options);

// Puts sweeps, filter and exclusions into a request that has these fields.
template <typename Request>
void FillCells(const CellOptions& options, Request* request) {
  for (const std::string& sweep : options.sweeps) request->add_sweeps(sweep);
  for (const std::string& cell : options.exclude) request->add_exclude(cell);
  request->set_filter(options.filter);
}

// How numbers are read and combined.
struct ConventionOptions {
  std::string transform, flops, parameters;
  double confidence = 0.95;
  std::vector<std::string> tasks;
};
void AddTransformOption(CLI::App* verb, std::string* transform);
void AddFlopsOption(CLI::App* verb, std::string* flops, const char* default_name = "forward");
void AddParametersOption(CLI::App* verb, std::string* parameters);
void AddConfidenceOption(CLI::App* verb, double* confidence);
void AddTasksOption(CLI::App* verb, std::vector<std::string>* tasks);
void AddConventionOptions(CLI::App* verb, ConventionOptions* options);  // all of them
void AddAxesOption(CLI::App* verb, std::string* axes, const char* default_text);

v1::SlopesRequest SlopesRequestOf(const CellOptions& cells, const ConventionOptions& conventions);

template <typename Request, typename Response>
using AnalystMethod = common::Result<Response> (coordinator::Analyst::*)(const Request&) const;
template <typename Request, typename Response>
using AnalysisCall = grpc::Status (v1::AnalysisService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

// The answer of the coordinator, or of this process where a database file is named.
template <typename Request, typename Response>
common::Result<Response> Ask(const CellOptions& options, const Request& request,
                             AnalystMethod<Request, Response> offline, AnalysisCall<Request, Response> online) {
  ALLO_RETURN_IF_ERROR(CheckCells(options));
  if (!options.database.empty()) return (coordinator::Analyst(options.database).*offline)(request);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  return client->Call(client->analysis(), online, request);
}

// CSV and JSON are for programs: every number in a column of its own.
bool IsTidy(const OutputOptions& output);
// JSON is the analysis' own object, which `json` holds; everything else the tables, one after the other. CSV has the
// first alone.
void PrintAnswer(const std::vector<common::Table>& tables, const std::string& json, const OutputOptions& output);

}  // namespace allometry::cli
