#include <memory>

#include "cli/analysis_options.h"
#include "cli/comparison_tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_rank {
namespace {

struct Options {
  CellOptions cells;
  std::vector<std::string> tasks;
  std::string quality = "upstream";
  double confidence = 0.95, sd = -1;
  uint64_t seed = 0;
};

v1::RanksRequest RequestOf(const Options& options) {
  v1::RanksRequest request;
  FillCells(options.cells, &request);
  for (const std::string& task : options.tasks) request.add_tasks(task);
  request.set_quality(options.quality);
  request.set_confidence(options.confidence);
  request.set_seed(options.seed);
  if (options.sd >= 0) request.set_sd(options.sd);
  return request;
}

int Rank(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(
      const v1::RanksResponse ranks,
      Ask(options.cells, RequestOf(options), &coordinator::Analyst::Ranks, &v1::AnalysisService::Stub::Ranks));
  PrintAnswer({RanksTable(ranks), AgreementsTable(ranks)}, ranks.json(), options.cells.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("rank", "Rank the architectures at each size, and compare the orders");
  verb->add_option("--quality", options->quality, "upstream, downstream, a task, or glue, superglue, squad, tasks")
      ->capture_default_str();
  AddTasksOption(verb, &options->tasks);
  AddConfidenceOption(verb, &options->confidence);
  verb->add_option("--sd", options->sd, "Seed standard deviation to assume without replicates")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seed", options->seed, "Of the draws behind the probabilities")->capture_default_str();
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Rank(*options); });
}

const VerbRegistration kRank(107, Declare);

}  // namespace
}  // namespace allometry::cli::verb_rank
