#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/output.h"
#include "cli/score_blocks.h"
#include "cli/verb.h"
#include "coordinator/rpc/analysis_service.h"

namespace allometry::cli {
namespace {

struct Options {
  std::vector<std::string> sweeps, exclude;
  std::string by = "cell", squad = "mean", filter;
  bool with_wnli = false;
  std::string database;
  ConnectOptions connect;
  OutputOptions output;
};

v1::ScoresRequest RequestOf(const Options& options) {
  v1::ScoresRequest request;
  for (const std::string& sweep : options.sweeps) request.add_sweeps(sweep);
  for (const std::string& cell : options.exclude) request.add_exclude(cell);
  request.set_by(options.by);
  request.set_filter(options.filter);
  request.set_with_wnli(options.with_wnli);
  request.set_squad(options.squad);
  return request;
}

common::Result<v1::ScoresResponse> Answer(const Options& options, const v1::ScoresRequest& request) {
  if (!options.database.empty()) return coordinator::ComputeScores(options.database, request);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  return client->Call(client->analysis(), &v1::AnalysisService::Stub::Scores, request);
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
  if (options.sweeps.empty() && options.database.empty())
    return Fail(common::InvalidArgument("name at least one sweep"));
  ALLO_ASSIGN_OR_FAIL(const v1::ScoresResponse scores, Answer(options, RequestOf(options)));
  PrintScores(scores, options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("scores", "Show the downstream scores with the benchmarks' averages");
  verb->add_option("sweeps", options->sweeps, "Sweeps whose cells to take together; with --db, none means all");
  verb->add_option("--by", options->by, "What a column is: a cell, or the mean of a size's seeds")
      ->check(CLI::IsMember({"cell", "mean"}))
      ->capture_default_str();
  verb->add_option("--squad", options->squad, "What SQuAD counts with in averages: mean of both scores, or one")
      ->check(CLI::IsMember({"mean", "exact_match", "f1"}))
      ->capture_default_str();
  verb->add_flag("--with-wnli", options->with_wnli, "Count WNLI in GLUE's average");
  verb->add_option("--filter", options->filter, "As for allo list");
  verb->add_option("--exclude", options->exclude, "Cells to leave out")->delimiter(',');
  verb->add_option("--db", options->database, "Database file to read instead of asking a coordinator");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Scores(*options); });
}

const VerbRegistration kScores(95, Declare);

}  // namespace
}  // namespace allometry::cli
