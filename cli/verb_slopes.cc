#include <memory>

#include "cli/client.h"
#include "cli/output.h"
#include "cli/study.h"
#include "cli/verb.h"
#include "coordinator/rpc/analysis_service.h"

namespace allometry::cli {
namespace {

struct Options {
  std::vector<std::string> sweeps, tasks, exclude;
  std::string transform, flops, parameters, baseline, filter;
  double confidence = 0.95;
  std::string database;
  ConnectOptions connect;
  OutputOptions output;
};

v1::SlopesRequest RequestOf(const Options& options) {
  v1::SlopesRequest request;
  for (const std::string& sweep : options.sweeps) request.add_sweeps(sweep);
  for (const std::string& task : options.tasks) request.add_tasks(task);
  for (const std::string& cell : options.exclude) request.add_exclude(cell);
  request.set_transform(options.transform);
  request.set_flops(options.flops);
  request.set_parameters(options.parameters);
  request.set_baseline(options.baseline);
  request.set_filter(options.filter);
  request.set_confidence(options.confidence);
  return request;
}

common::Result<v1::SlopesResponse> Answer(const Options& options, const v1::SlopesRequest& request) {
  if (!options.database.empty()) return coordinator::ComputeSlopes(options.database, request);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  return AskSlopes(*client, request);
}

int Slopes(const Options& options) {
  if (options.sweeps.empty() && options.database.empty())
    return Fail(common::InvalidArgument("name at least one sweep"));
  ALLO_ASSIGN_OR_FAIL(const v1::SlopesResponse slopes, Answer(options, RequestOf(options)));
  PrintSlopes(slopes, options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("slopes", "Fit the slopes that say how each architecture scales");
  verb->add_option("sweeps", options->sweeps, "Sweeps whose cells to take together; with --db, none means all");
  verb->add_option("--transform", options->transform, "How axes are transformed (default: semilog)")
      ->check(CLI::IsMember({"semilog", "loglog"}));
  verb->add_option("--flops", options->flops, "Which FLOPs (default: forward)")
      ->check(CLI::IsMember({"forward", "forward_without_head", "mtf", "six_nd", "training"}));
  verb->add_option("--parameters", options->parameters, "Which parameters (default: total)")
      ->check(CLI::IsMember({"total", "non_embedding", "active"}));
  verb->add_option("--confidence", options->confidence, "Of the intervals")->capture_default_str();
  verb->add_option("--baseline", options->baseline, "Differences to this architecture; '*': all pairs");
  verb->add_option("--tasks", options->tasks,
                   "What D averages: tasks, glue, superglue, squad, tasks (default: whole benchmarks, else all tasks)")
      ->delimiter(',');
  verb->add_option("--filter", options->filter, "As for allo list");
  verb->add_option("--exclude", options->exclude, "Cells to leave out")->delimiter(',');
  verb->add_option("--db", options->database, "Database file to read instead of asking a coordinator");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Slopes(*options); });
}

const VerbRegistration kSlopes(100, Declare);

}  // namespace
}  // namespace allometry::cli
