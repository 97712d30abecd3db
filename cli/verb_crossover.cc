#include <memory>

#include "analysis/axis_pair.h"
#include "cli/client.h"
#include "cli/comparison_tables.h"
#include "cli/output.h"
#include "cli/verb.h"
#include "coordinator/rpc/analysis_service.h"

namespace allometry::cli {
namespace {

struct Options {
  std::vector<std::string> sweeps, between, tasks, exclude;
  std::string axes = "F,U", transform, flops, parameters, filter;
  double confidence = 0.95;
  std::string database;
  ConnectOptions connect;
  OutputOptions output;
};

v1::CrossoversRequest RequestOf(const Options& options) {
  v1::CrossoversRequest request;
  v1::SlopesRequest& slopes = *request.mutable_slopes();
  for (const std::string& sweep : options.sweeps) slopes.add_sweeps(sweep);
  for (const std::string& task : options.tasks) slopes.add_tasks(task);
  for (const std::string& cell : options.exclude) slopes.add_exclude(cell);
  slopes.set_transform(options.transform);
  slopes.set_flops(options.flops);
  slopes.set_parameters(options.parameters);
  slopes.set_filter(options.filter);
  slopes.set_confidence(options.confidence);
  request.set_axes(options.axes);
  if (!options.between.empty()) request.set_first(options.between[0]);
  if (options.between.size() > 1) request.set_second(options.between[1]);
  return request;
}

common::Result<v1::CrossoversResponse> Answer(const Options& options, const v1::CrossoversRequest& request) {
  if (!options.database.empty()) return coordinator::ComputeCrossovers(options.database, request);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  return client->Call(client->analysis(), &v1::AnalysisService::Stub::Crossovers, request);
}

int Crossovers(const Options& options) {
  if (options.sweeps.empty() && options.database.empty())
    return Fail(common::InvalidArgument("name at least one sweep"));
  ALLO_ASSIGN_OR_FAIL(const analysis::AxisPair axes, analysis::ParseAxisPair(options.axes));
  if (options.between.size() > 2) return Fail(common::InvalidArgument("--between takes one architecture, or two"));
  ALLO_ASSIGN_OR_FAIL(const v1::CrossoversResponse crossovers, Answer(options, RequestOf(options)));
  const common::OutputFormat format = FormatOf(options.output);
  const bool tidy = format == common::OutputFormat::kCsv || format == common::OutputFormat::kJson;
  const bool quantity = axes.x == analysis::Axis::kFlops || axes.x == analysis::Axis::kParameters;
  Print(CrossoversTable(crossovers, quantity, tidy), options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("crossover", "Find where two architectures are equally good");
  verb->add_option("sweeps", options->sweeps, "Sweeps whose cells to take together; with --db, none means all");
  verb->add_option("--between", options->between, "A,B: these two; A: it against all others (default: all pairs)")
      ->delimiter(',');
  verb->add_option("--axes", options->axes, "F,U F,D P,U P,D U,D s,U or s,D")->capture_default_str();
  verb->add_option("--transform", options->transform, "How axes are transformed (default: semilog)")
      ->check(CLI::IsMember({"semilog", "loglog"}));
  verb->add_option("--flops", options->flops, "Which FLOPs (default: forward)")
      ->check(CLI::IsMember({"forward", "forward_without_head", "mtf", "six_nd", "training"}));
  verb->add_option("--parameters", options->parameters, "Which parameters (default: total)")
      ->check(CLI::IsMember({"total", "non_embedding", "active"}));
  verb->add_option("--confidence", options->confidence, "Of each pair's band")->capture_default_str();
  verb->add_option("--tasks", options->tasks, "What D averages, as for allo slopes")->delimiter(',');
  verb->add_option("--filter", options->filter, "As for allo list");
  verb->add_option("--exclude", options->exclude, "Cells to leave out")->delimiter(',');
  verb->add_option("--db", options->database, "Database file to read instead of asking a coordinator");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Crossovers(*options); });
}

const VerbRegistration kCrossover(106, Declare);

}  // namespace
}  // namespace allometry::cli
