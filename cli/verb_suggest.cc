#include <iostream>
#include <memory>

#include "cli/analysis_options.h"
#include "cli/law_tables.h"
#include "cli/verb.h"
#include "common/files.h"

namespace allometry::cli::verb_suggest {
namespace {

struct Options {
  CellOptions cells;
  ConventionOptions conventions;
  std::vector<std::string> architectures;
  std::string axes, law, file;
  double budget = 0, delta = 0;
  int32_t cap = 5;
};

v1::SuggestRequest RequestOf(const Options& options) {
  v1::SuggestRequest request;
  *request.mutable_slopes() = SlopesRequestOf(options.cells, options.conventions);
  request.set_axes(options.axes);
  request.set_law(options.law);
  for (const std::string& name : options.architectures) request.add_architectures(name);
  request.set_budget_flops(options.budget);
  request.set_cap(options.cap);
  if (options.delta != 0) request.set_delta(options.delta);
  request.set_next_sweep(!options.file.empty());
  return request;
}

// Relative paths in the file start where they did in the sweep's own.
common::Status WriteNext(const std::string& file, const std::string& yaml) {
  return common::WriteFileAtomically(
      file, "# Suggested next runs. Analyse them together with the sweep that they continue.\n" + yaml);
}

int Suggest(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(
      const v1::SuggestResponse suggested,
      Ask(options.cells, RequestOf(options), &coordinator::Analyst::Suggest, &v1::AnalysisService::Stub::Suggest));
  PrintAnswer(
      {SuggestedCellsTable(suggested), TargetsTable(suggested), NewSizesTable(suggested), PowerTable(suggested)},
      suggested.json(), options.cells.output);
  if (options.file.empty()) return kExitOk;
  if (const auto written = WriteNext(options.file, suggested.sweep_yaml()); !written) return Fail(written.error());
  std::cerr << options.file << ": " << suggested.cells_size() << " cells\n";
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("suggest", "Say which cells to run next for the most certain slopes");
  verb->add_option("--budget", options->budget, "Training FLOPs to spend")->required();
  verb->add_option("-o,--output", options->file, "Sweep file to write, ready to submit");
  AddAxesOption(verb, &options->axes, "F,U");
  verb->add_option("--law", options->law, "In place of slopes: narrow this law's exponents")
      ->check(CLI::IsMember({"compute", "parameters_tokens"}));
  verb->add_option("--architectures", options->architectures, "Whose slopes or laws (default: all)")->delimiter(',');
  verb->add_option("--cap", options->cap, "Seeds of a size, at most")->capture_default_str();
  verb->add_option("--delta", options->delta, "Difference of two slopes: the seeds and sizes that show it");
  AddTransformOption(verb, &options->conventions.transform);
  AddFlopsOption(verb, &options->conventions.flops, "forward; with --law training");
  AddParametersOption(verb, &options->conventions.parameters);
  AddConfidenceOption(verb, &options->conventions.confidence);
  AddTasksOption(verb, &options->conventions.tasks);
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Suggest(*options); });
}

const VerbRegistration kSuggest(110, Declare);

}  // namespace
}  // namespace allometry::cli::verb_suggest
