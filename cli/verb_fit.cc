#include <memory>

#include "cli/analysis_options.h"
#include "cli/law_tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_fit {
namespace {

struct Options {
  CellOptions cells;
  ConventionOptions conventions;
  std::vector<std::string> forms;
  std::string score = "downstream";
  bool pooled = false, runs = false, isoflop = false;
  double budget = 0, delta = 1e-3;
  int32_t replicates = 4000;
  uint64_t seed = 1;
};

v1::FitRequest RequestOf(const Options& options) {
  v1::FitRequest request;
  *request.mutable_slopes() = SlopesRequestOf(options.cells, options.conventions);
  for (const std::string& form : options.forms) request.add_forms(form);
  request.set_pooled(options.pooled);
  request.set_runs(options.runs);
  request.set_score(options.score);
  if (options.budget != 0) request.set_budget_flops(options.budget);
  request.set_replicates(options.replicates);
  request.set_seed(options.seed);
  request.set_delta(options.delta);
  request.set_isoflop(options.isoflop);
  return request;
}

int Fit(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const v1::FitResponse fit, Ask(options.cells, RequestOf(options), &coordinator::Analyst::Fit,
                                                     &v1::AnalysisService::Stub::Fit));
  PrintAnswer({LawsTable(fit, IsTidy(options.cells.output)), OptimaTable(fit)}, fit.json(), options.cells.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("fit", "Fit scaling laws, each with a certificate");
  verb->add_option("--form", options->forms, "Which laws (default: all that the cells allow, but tied and broken)")
      ->delimiter(',')
      ->check(CLI::IsMember({"parameters_tokens", "tied", "compute", "broken", "sigmoid", "exponential"}));
  verb->add_option("--budget", options->budget, "Training FLOPs: the N and D of least loss for them");
  verb->add_flag("--pooled", options->pooled, "One law for all architectures together");
  verb->add_flag("--runs", options->runs, "A point is a run, not the mean over the seeds of a size");
  verb->add_flag("--isoflop", options->isoflop, "Also parabolas through runs of equal compute, in the JSON");
  verb->add_option("--score", options->score, "Of sigmoid and exponential: downstream, a task or an average")
      ->capture_default_str();
  AddFlopsOption(verb, &options->conventions.flops, "training");
  AddParametersOption(verb, &options->conventions.parameters);
  AddConfidenceOption(verb, &options->conventions.confidence);
  AddTasksOption(verb, &options->conventions.tasks);
  verb->add_option("--replicates", options->replicates, "Of the bootstrap; 0: no intervals")->capture_default_str();
  verb->add_option("--seed", options->seed, "Of the bootstrap")->capture_default_str();
  verb->add_option("--delta", options->delta, "Huber's, in ln loss")->capture_default_str();
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Fit(*options); });
}

const VerbRegistration kFit(108, Declare);

}  // namespace
}  // namespace allometry::cli::verb_fit
