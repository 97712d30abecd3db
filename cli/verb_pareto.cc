#include <memory>

#include "cli/client.h"
#include "cli/output.h"
#include "cli/study.h"
#include "cli/verb.h"
#include "coordinator/rpc/analysis_service.h"

namespace allometry::cli {
namespace {

struct Options {
  std::vector<std::string> sweeps, exclude;
  std::string cost = "flops", quality = "upstream", flops, filter;
  uint64_t seed = 0;
  double sd = -1;
  std::string database;
  ConnectOptions connect;
  OutputOptions output;
};

v1::ParetoRequest RequestOf(const Options& options) {
  v1::ParetoRequest request;
  for (const std::string& sweep : options.sweeps) request.add_sweeps(sweep);
  for (const std::string& cell : options.exclude) request.add_exclude(cell);
  request.set_cost(options.cost);
  request.set_quality(options.quality);
  request.set_flops(options.flops);
  request.set_filter(options.filter);
  request.set_seed(options.seed);
  if (options.sd >= 0) request.set_sd(options.sd);
  return request;
}

common::Result<v1::ParetoResponse> Answer(const Options& options, const v1::ParetoRequest& request) {
  if (!options.database.empty()) return coordinator::ComputePareto(options.database, request);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  return AskPareto(*client, request);
}

int Pareto(const Options& options) {
  if (options.sweeps.empty() && options.database.empty())
    return Fail(common::InvalidArgument("name at least one sweep"));
  const v1::ParetoRequest request = RequestOf(options);
  ALLO_ASSIGN_OR_FAIL(const v1::ParetoResponse pareto, Answer(options, request));
  PrintPareto(request, pareto, options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("pareto", "Show which cells no other one beats in cost and quality");
  verb->add_option("sweeps", options->sweeps, "Sweeps whose cells to take together; with --db, none means all");
  verb->add_option("--cost", options->cost, "What is paid")
      ->check(CLI::IsMember({"flops", "training_flops", "parameters", "non_embedding_parameters", "active_parameters",
                             "seconds", "memory"}))
      ->capture_default_str();
  verb->add_option("--quality", options->quality, "upstream, downstream, a task, or glue, superglue, squad, tasks")
      ->capture_default_str();
  verb->add_option("--flops", options->flops, "Which FLOPs (default: forward)")
      ->check(CLI::IsMember({"forward", "forward_without_head", "mtf", "six_nd", "training"}));
  verb->add_option("--sd", options->sd, "Seed standard deviation to assume without replicates")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seed", options->seed, "Of the draws behind the probabilities")->capture_default_str();
  verb->add_option("--filter", options->filter, "As for allo list");
  verb->add_option("--exclude", options->exclude, "Cells to leave out")->delimiter(',');
  verb->add_option("--db", options->database, "Database file to read instead of asking a coordinator");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Pareto(*options); });
}

const VerbRegistration kPareto(105, Declare);

}  // namespace
}  // namespace allometry::cli
