#include <memory>

#include "cli/analysis_options.h"
#include "cli/study.h"
#include "cli/verb.h"

namespace allometry::cli::verb_pareto {
namespace {

struct Options {
  CellOptions cells;
  std::vector<std::string> costs = {"flops"}, tasks;
  std::string quality = "upstream", flops;
  uint64_t seed = 0;
  double sd = -1;
};

v1::ParetoRequest RequestOf(const Options& options) {
  v1::ParetoRequest request;
  FillCells(options.cells, &request);
  request.set_cost(options.costs.front());
  for (size_t i = 1; i < options.costs.size(); ++i) request.add_more_costs(options.costs[i]);
  for (const std::string& task : options.tasks) request.add_tasks(task);
  request.set_quality(options.quality);
  request.set_flops(options.flops);
  request.set_seed(options.seed);
  if (options.sd >= 0) request.set_sd(options.sd);
  return request;
}

int Pareto(const Options& options) {
  const v1::ParetoRequest request = RequestOf(options);
  ALLO_ASSIGN_OR_FAIL(const v1::ParetoResponse pareto,
                      Ask(options.cells, request, &coordinator::Analyst::Pareto, &v1::AnalysisService::Stub::Pareto));
  PrintPareto(request, pareto, options.cells.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("pareto", "Show which cells no other one beats in cost and quality");
  verb->add_option("--cost", options->costs, "What is paid; several: a cell is beaten only in all of them at once")
      ->delimiter(',')
      ->check(CLI::IsMember({"flops", "training_flops", "parameters", "non_embedding_parameters", "active_parameters",
                             "seconds", "memory"}))
      ->capture_default_str();
  verb->add_option("--quality", options->quality, "upstream, downstream, a task, or glue, superglue, squad, tasks")
      ->capture_default_str();
  AddFlopsOption(verb, &options->flops);
  AddTasksOption(verb, &options->tasks);
  verb->add_option("--sd", options->sd, "Seed standard deviation to assume without replicates")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seed", options->seed, "Of the draws behind the probabilities")->capture_default_str();
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Pareto(*options); });
}

const VerbRegistration kPareto(105, Declare);

}  // namespace
}  // namespace allometry::cli::verb_pareto
