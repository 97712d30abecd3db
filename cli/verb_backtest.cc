#include <memory>

#include "cli/analysis_options.h"
#include "cli/law_tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_backtest {
namespace {

struct Options {
  CellOptions cells;
  ConventionOptions conventions;
  std::vector<std::string> forms;
  std::string axes;
};

int Backtest(const Options& options) {
  v1::BacktestRequest request;
  *request.mutable_slopes() = SlopesRequestOf(options.cells, options.conventions);
  request.set_axes(options.axes);
  for (const std::string& form : options.forms) request.add_forms(form);
  ALLO_ASSIGN_OR_FAIL(const v1::BacktestResponse backtest, Ask(options.cells, request, &coordinator::Analyst::Backtest,
                                                               &v1::AnalysisService::Stub::Backtest));
  if (IsTidy(options.cells.output))
    PrintAnswer({ForecastsTable(backtest, true)}, backtest.json(), options.cells.output);
  else
    PrintAnswer({ErrorsTable(backtest), ForecastsTable(backtest, false)}, backtest.json(), options.cells.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      program.add_subcommand("backtest", "Forecast each largest size from the smaller ones, by every form");
  verb->add_option("--form", options->forms, "line, a law, or a law with -huber behind (default: all)")->delimiter(',');
  AddAxesOption(verb, &options->axes, "all");
  AddConventionOptions(verb, &options->conventions);
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Backtest(*options); });
}

const VerbRegistration kBacktest(109, Declare);

}  // namespace
}  // namespace allometry::cli::verb_backtest
