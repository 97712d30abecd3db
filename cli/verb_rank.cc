#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/comparison_tables.h"
#include "cli/output.h"
#include "cli/verb.h"
#include "coordinator/rpc/analysis_service.h"

namespace allometry::cli {
namespace {

struct Options {
  std::vector<std::string> sweeps, tasks, exclude;
  std::string quality = "upstream", filter;
  double confidence = 0.95, sd = -1;
  uint64_t seed = 0;
  std::string database;
  ConnectOptions connect;
  OutputOptions output;
};

v1::RanksRequest RequestOf(const Options& options) {
  v1::RanksRequest request;
  for (const std::string& sweep : options.sweeps) request.add_sweeps(sweep);
  for (const std::string& task : options.tasks) request.add_tasks(task);
  for (const std::string& cell : options.exclude) request.add_exclude(cell);
  request.set_quality(options.quality);
  request.set_filter(options.filter);
  request.set_confidence(options.confidence);
  request.set_seed(options.seed);
  if (options.sd >= 0) request.set_sd(options.sd);
  return request;
}

common::Result<v1::RanksResponse> Answer(const Options& options, const v1::RanksRequest& request) {
  if (!options.database.empty()) return coordinator::ComputeRanks(options.database, request);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  return client->Call(client->analysis(), &v1::AnalysisService::Stub::Ranks, request);
}

// CSV has the ranks alone, JSON both.
void PrintRanks(const v1::RanksResponse& ranks, const OutputOptions& output) {
  const common::Table table = RanksTable(ranks), agreements = AgreementsTable(ranks);
  common::Json json = common::TableToJson(table);
  json["agreements"] = common::TableToJson(agreements)["agreements"];
  Print(table, json, output);
  const common::OutputFormat format = FormatOf(output);
  if (format == common::OutputFormat::kCsv || format == common::OutputFormat::kJson || agreements.rows.empty()) return;
  std::cout << '\n';
  Print(agreements, output);
}

int Rank(const Options& options) {
  if (options.sweeps.empty() && options.database.empty())
    return Fail(common::InvalidArgument("name at least one sweep"));
  ALLO_ASSIGN_OR_FAIL(const v1::RanksResponse ranks, Answer(options, RequestOf(options)));
  PrintRanks(ranks, options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("rank", "Rank the architectures at each size, and compare the orders");
  verb->add_option("sweeps", options->sweeps, "Sweeps whose cells to take together; with --db, none means all");
  verb->add_option("--quality", options->quality, "upstream, downstream, a task, or glue, superglue, squad, tasks")
      ->capture_default_str();
  verb->add_option("--tasks", options->tasks, "What D averages, as for allo slopes")->delimiter(',');
  verb->add_option("--confidence", options->confidence, "Of the intervals")->capture_default_str();
  verb->add_option("--sd", options->sd, "Seed standard deviation to assume without replicates")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seed", options->seed, "Of the draws behind the probabilities")->capture_default_str();
  verb->add_option("--filter", options->filter, "As for allo list");
  verb->add_option("--exclude", options->exclude, "Cells to leave out")->delimiter(',');
  verb->add_option("--db", options->database, "Database file to read instead of asking a coordinator");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Rank(*options); });
}

const VerbRegistration kRank(107, Declare);

}  // namespace
}  // namespace allometry::cli
