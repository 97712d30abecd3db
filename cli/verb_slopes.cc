#include <memory>

#include "cli/analysis_options.h"
#include "cli/study.h"
#include "cli/verb.h"

namespace allometry::cli::verb_slopes {
namespace {

struct Options {
  CellOptions cells;
  ConventionOptions conventions;
  std::string baseline;
  bool per_task = false;
};

int Slopes(const Options& options) {
  v1::SlopesRequest request = SlopesRequestOf(options.cells, options.conventions);
  request.set_baseline(options.baseline);
  request.set_per_task(options.per_task);
  ALLO_ASSIGN_OR_FAIL(const v1::SlopesResponse slopes,
                      Ask(options.cells, request, &coordinator::Analyst::Slopes, &v1::AnalysisService::Stub::Slopes));
  PrintSlopes(slopes, options.cells.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("slopes", "Fit the slopes that say how each architecture scales");
  AddConventionOptions(verb, &options->conventions);
  verb->add_option("--baseline", options->baseline, "Differences to this architecture; '*': all pairs");
  verb->add_flag("--per-task", options->per_task, "Also the slopes of every task by itself");
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Slopes(*options); });
}

const VerbRegistration kSlopes(100, Declare);

}  // namespace
}  // namespace allometry::cli::verb_slopes
