#include <memory>

#include "analysis/axis_pair.h"
#include "cli/analysis_options.h"
#include "cli/comparison_tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_crossover {
namespace {

struct Options {
  CellOptions cells;
  ConventionOptions conventions;
  std::vector<std::string> between;
  std::string axes;
};

int Crossovers(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const analysis::AxisPair axes, analysis::ParseAxisPair(options.axes));
  if (options.between.size() > 2) return Fail(common::InvalidArgument("--between takes one architecture, or two"));
  v1::CrossoversRequest request;
  *request.mutable_slopes() = SlopesRequestOf(options.cells, options.conventions);
  request.set_axes(options.axes);
  if (!options.between.empty()) request.set_first(options.between[0]);
  if (options.between.size() > 1) request.set_second(options.between[1]);
  ALLO_ASSIGN_OR_FAIL(
      const v1::CrossoversResponse crossovers,
      Ask(options.cells, request, &coordinator::Analyst::Crossovers, &v1::AnalysisService::Stub::Crossovers));
  const bool quantity = axes.x == analysis::Axis::kFlops || axes.x == analysis::Axis::kParameters;
  PrintAnswer({CrossoversTable(crossovers, quantity, IsTidy(options.cells.output))}, crossovers.json(),
              options.cells.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("crossover", "Find where two architectures are equally good");
  verb->add_option("--between", options->between, "A,B: these two; A: it against all others (default: all pairs)")
      ->delimiter(',');
  AddAxesOption(verb, &options->axes, "F,U");
  AddConventionOptions(verb, &options->conventions);
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Crossovers(*options); });
}

const VerbRegistration kCrossover(106, Declare);

}  // namespace
}  // namespace allometry::cli::verb_crossover
