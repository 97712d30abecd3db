#include <iostream>
#include <memory>

#include "cli/analysis_options.h"
#include "cli/score_blocks.h"
#include "cli/verb.h"

namespace allometry::cli::verb_scores {
namespace {

struct Options {
  CellOptions cells;
  std::string by = "cell", squad = "mean";
  bool with_wnli = false;
};

v1::ScoresRequest RequestOf(const Options& options) {
  v1::ScoresRequest request;
  FillCells(options.cells, &request);
  request.set_by(options.by);
  request.set_with_wnli(options.with_wnli);
  request.set_squad(options.squad);
  return request;
}

// The tidy rows, and what D is.
common::Json JsonOf(const v1::ScoresResponse& scores) {
  common::Json json = common::TableToJson(TidyScores(scores));
  const v1::Downstream& d = scores.downstream();
  json["downstream"] = {{"definition", d.definition()},
                        {"parts", std::vector<std::string>(d.parts().begin(), d.parts().end())},
                        {"note", d.note()}};
  return json;
}

void PrintScores(const v1::ScoresResponse& scores, const OutputOptions& output) {
  switch (FormatOf(output)) {
    case common::OutputFormat::kTable:
      std::cout << ScoreBlocks(scores, TerminalWidth()) << std::flush;
      return;
    case common::OutputFormat::kMarkdown:
      return Print(ScoresForPeople(scores), output);
    case common::OutputFormat::kCsv:
    case common::OutputFormat::kJson:
      return Print(TidyScores(scores), JsonOf(scores), output);
  }
}

int Scores(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(
      const v1::ScoresResponse scores,
      Ask(options.cells, RequestOf(options), &coordinator::Analyst::Scores, &v1::AnalysisService::Stub::Scores));
  PrintScores(scores, options.cells.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("scores", "Show the downstream scores with the benchmarks' averages");
  verb->add_option("--by", options->by, "What a column is: a cell, or the mean of a size's seeds")
      ->check(CLI::IsMember({"cell", "mean"}))
      ->capture_default_str();
  verb->add_option("--squad", options->squad, "What SQuAD counts with in averages: mean of both scores, or one")
      ->check(CLI::IsMember({"mean", "exact_match", "f1"}))
      ->capture_default_str();
  verb->add_flag("--with-wnli", options->with_wnli, "Count WNLI in GLUE's average");
  AddCellOptions(verb, &options->cells);
  OnRun(verb, [options] { return Scores(*options); });
}

const VerbRegistration kScores(95, Declare);

}  // namespace
}  // namespace allometry::cli::verb_scores
